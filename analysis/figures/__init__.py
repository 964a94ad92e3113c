"""Figures by name. To add one: write `draw` in a file of its own, add a line here and its words in words.py."""

from importlib import import_module
from pathlib import Path

from analysis.figures import style
from analysis.figures.words import WORDS

FIGURES: dict[str, str] = {
    "loss_vs_compute": "analysis.figures.loss_vs_compute:draw",
    "isoflop_valleys": "analysis.figures.isoflop_valleys:draw",
    "optimal_allocation": "analysis.figures.optimal_allocation:draw",
    "quality_vs_compute": "analysis.figures.quality_vs_compute:draw",
    "kinds": "analysis.figures.kinds:draw",
    "concept_presence": "analysis.figures.presence:draw",
}
SWEEP_FIGURES = tuple(name for name in FIGURES if name not in ("kinds", "concept_presence"))  # these draw (table, fits)


def of_sweep(table) -> tuple[str, ...]:
    """The figures of a sweep: those of budgets, unless it has none but compares kinds; and `kinds` where it has several."""
    several = table["kind"].nunique() > 1
    budgets = () if several and table["target_flops"].isna().all() else SWEEP_FIGURES
    return budgets + (("kinds",) if several else ())


def load(name: str):
    """The drawing function; imported only now. Errors: `ValueError` for an unknown name."""
    if name not in FIGURES:
        raise ValueError(f"There is no figure {name!r}: choose one of {', '.join(FIGURES)}.")
    module, function = FIGURES[name].split(":")
    return getattr(import_module(module), function)


def draw(name: str, *inputs):
    """The matplotlib Figure `name` in the house style: (table, fits) for sweeps, (concepts, presence_fit) for concepts."""
    function = load(name)
    with style.house():
        return function(*inputs)


def write(name: str, folder: Path, *inputs) -> dict:
    """Draw and save `name` as SVG and PNG in `folder`; the same inputs give the same bytes.

    Gives {"name", "title", "caption", "svg", "png"} (file names), which is what the report wants.
    """
    figure = draw(name, *inputs)
    svg, png = style.save(figure, Path(folder), name)
    title, caption = WORDS.get(name, (name.replace("_", " "), ""))
    return {"name": name, "title": title, "caption": caption, "svg": svg.name, "png": png.name}
