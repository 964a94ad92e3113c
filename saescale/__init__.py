"""saescale: a scaling-law experiment orchestrator for sparse autoencoders.

In a notebook: `saescale.load_sae(run)`, and `analysis.table(sweep)`, `analysis.fit(...)`, `analysis.figure(name, sweep)`.
"""

from importlib import import_module

__version__ = "0.1.0"
_WHERE = {"load_sae": "saescale.notebook"}  # imported when first asked for: `import saescale` costs nothing
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str):  # noqa: ANN202
    if name not in _WHERE:
        raise AttributeError(f"saescale has no {name!r}: it offers {', '.join(__all__)}.")
    return getattr(import_module(_WHERE[name]), name)
