"""The plots of the report: each figure interactive where it can be, with its pictures to download and the runs behind it."""

from html import escape

from analysis.figures.interactive import run_ids


def section(figures: list[dict], rows: list[str]) -> str:
    """One block per figure, as `analysis.figures.write` gave it. `rows`: the run ids of the sweep, in the table's order."""
    if not figures:
        return ""
    shown = [figure for figure in figures if figure.get("plot")]
    blocks = [_block(figure, shown.index(figure) if figure.get("plot") else None, set(rows)) for figure in figures]
    how = (
        "Point at a mark to see which run it is, click to ring that run everywhere; drag to look closer, double click to see all"
        " again; the legend switches series on and off."
    )
    return f'<h2>Plots</h2>\n<p class="quiet">{how}</p>\n<div class="plots">\n' + "\n".join(blocks) + "\n</div>"


def data(figures: list[dict], rows: list[str]) -> list[dict]:
    """The interactive plots for the page's script; runs by their place in the table, a run that is not in it by -1."""
    place = {run_id: i for i, run_id in enumerate(rows)}
    return [_numbered(figure["plot"], place) for figure in figures if figure.get("plot")]


def _numbered(plot: dict, place: dict[str, int]) -> dict:
    def one(series: dict) -> dict:
        groups = [[place.get(run, -1) for run in group] for group in series.get("runs", [])]
        return series | ({"runs": groups} if groups else {})

    panels = [panel | {"series": [one(series) for series in panel["series"]]} for panel in plot["panels"]]
    return plot | {"panels": panels}


def _block(figure: dict, number: int | None, known: set[str]) -> str:
    svg, png = (f"figures/{escape(figure[kind], quote=True)}" for kind in ("svg", "png"))
    title, caption = escape(figure["title"]), escape(figure["caption"])
    picture = f'<img src="{svg}" alt="{title}. {caption}" loading="lazy">'
    stage, about = picture, ""
    wide = ""
    if number is not None:
        panels = figure["plot"]["panels"]
        long_words = any(len(text["words"]) > 30 for panel in panels for text in panel["texts"])
        wide = ' class="wide"' if len(panels) > 1 or long_words else ""
        stage = f'<div class="panels"></div><noscript>{picture}</noscript>'
        about = f' data-plot="{number}" data-title="{title}"'
    links = f'<a href="{svg}" download>SVG</a> <a href="{png}" download>PNG</a>'
    return (
        f'<figure id="plot-{escape(figure["name"], quote=True)}"{wide}{about}>\n'
        f'<div class="title"><h3>{title}</h3><span class="links">{links}</span></div>\n{stage}\n'
        f"<figcaption>{caption}{_behind(figure, known)}</figcaption></figure>"
    )


def _behind(figure: dict, known: set[str]) -> str:
    ids = [run_id for run_id in run_ids(figure.get("plot")) if run_id in known]
    if not ids:
        return " Its marks are fits and means, not single runs." if figure.get("plot") else ""
    listing = "<br>".join(f"<code>{escape(run_id)}</code>" for run_id in ids)
    return f"<details><summary>the {len(ids):,} runs behind it</summary>\n<p>{listing}</p></details>"
