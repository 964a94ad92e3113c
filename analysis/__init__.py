"""From records on disk, or any table of sizes, tokens and losses, to laws, figures and a report.

Imports no torch and no part of saescale that trains. The functions named here are imported when first asked for, so
`import analysis` costs nothing.
"""

from importlib import import_module

_WHERE = {
    "FitResult": "analysis.result",
    "Law": "analysis.laws",
    "allocation": "analysis.allocate",
    "compare": "analysis.selection",
    "figure": "analysis.notebook",
    "fit": "analysis.estimate",
    "fits": "analysis.notebook",
    "frontier": "analysis.hull",
    "isoflop": "analysis.isoflops",
    "points": "analysis.reading",
    "predict": "analysis.forecast",
    "read_points": "analysis.reading",
    "table": "analysis.notebook",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"analysis has no {name!r}: it offers {', '.join(__all__)}.")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
