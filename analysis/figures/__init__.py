"""Figures by name. To add one: write `draw` in a file of its own, add a line here and its words in words.py."""

from importlib import import_module
from pathlib import Path

from analysis.figures import style
from analysis.figures.interactive import describe
from analysis.figures.words import WORDS

FIGURES: dict[str, str] = {
    "loss_vs_compute": "analysis.figures.loss_vs_compute:draw",
    "isoflop_valleys": "analysis.figures.isoflop_valleys:draw",
    "optimal_allocation": "analysis.figures.optimal_allocation:draw",
    "quality_vs_compute": "analysis.figures.quality_vs_compute:draw",
    "kinds": "analysis.figures.kinds:draw",
    "size_by_k": "analysis.figures.size_by_k:draw",
    "equal_compute": "analysis.figures.equal_compute:draw",
    "law_fit": "analysis.figures.law_fit:draw",
    "residuals": "analysis.figures.residuals:draw",
    "valleys": "analysis.figures.valleys:draw",
    "split": "analysis.figures.split:draw",
    "exponents": "analysis.figures.exponents:draw",
    "learning_rate": "analysis.figures.learning_rate:draw",
    "rate_ladder": "analysis.figures.rate_ladder:draw",
    "firing": "analysis.figures.firing:draw",
    "others": "analysis.figures.others:draw",
    "concept_presence": "analysis.figures.presence:draw",
    "concept_collapse": "analysis.figures.presence_collapse:draw",
    "concept_f50": "analysis.figures.presence_f50:draw",
    "concept_strip": "analysis.figures.presence_strip:draw",
    "concept_completeness": "analysis.figures.presence_complete:draw",
    "splitting": "analysis.figures.splitting:draw",
    "steering": "analysis.figures.steering:draw",
    "probing": "analysis.figures.probing:draw",
    "oracle": "analysis.figures.oracle:draw",
    "rubric": "analysis.figures.rubric:draw",
    "oversample": "analysis.figures.oversample:draw",
    "manifolds": "analysis.figures.manifolds:draw",
}
SWEEP_FIGURES = ("loss_vs_compute", "isoflop_valleys", "optimal_allocation", "quality_vs_compute")  # draw (table, fits)
LAW_FIGURES = ("law_fit", "residuals", "valleys", "split", "exponents")  # the same, for a sweep or for any table of points
FEATURE_FIGURES = ("concept_presence", "concept_collapse", "concept_f50")  # draw (concepts, presence_fit)
CONCEPT_FIGURES = (*FEATURE_FIGURES, "concept_strip", "concept_completeness")  # the last two: of names in categories
RECORD_FIGURES = ("splitting", "steering", "probing", "rubric", "oversample", "manifolds")  # (what lies in <name>.json)
MORE_FIGURES = ("learning_rate", "size_by_k", "equal_compute", "firing", "oracle", "others")  # (table, fits), where there


def of_sweep(table, fits: dict) -> tuple[str, ...]:
    """The figures in which a sweep has something to say: of its fits, and `kinds` where it has several."""
    blocks = {"law_fit": "surface", "residuals": "surface", "split": "allocation", "learning_rate": "learning_rate"}

    def filled(name: str) -> bool:
        block = fits.get(blocks.get(name, name))
        if name == "exponents" and isinstance(block, list):
            return any(record["estimate"] is not None for record in block if record.get("group") != "frontier")
        return bool(block) and not (isinstance(block, dict) and ("reason" in block or block.get("sizes") == []))

    shown = [name for name in LAW_FIGURES if name != "valleys" and filled(name)]  # a sweep has its own valleys
    more = [name for name in MORE_FIGURES if filled(name)]
    if (fits.get("learning_rate") or {}).get("ladder", {}).get("rungs"):
        more.append("rate_ladder")
    kinds = ("kinds",) if table["kind"].nunique() > 1 else ()
    return (*(SWEEP_FIGURES if fits["budgets"] else ()), *shown, *kinds, *more)


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

    Gives {"name", "title", "caption", "svg", "png", "plot"}, which is what the report wants: two file names, and the figure's
    interactive twin or None (see `analysis.figures.interactive`).
    """
    figure = draw(name, *inputs)
    svg, png = style.save(figure, Path(folder), name)
    title, caption = WORDS.get(name, (name.replace("_", " "), ""))
    with style.house():
        plot = describe(figure)
    return {"name": name, "title": title, "caption": caption, "svg": svg.name, "png": png.name, "plot": plot}
