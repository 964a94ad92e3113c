"""One static page per sweep: the question, the exponents, the figures, what was left out and why. No scripts."""

from html import escape
from importlib import resources
from pathlib import Path

import pandas as pd

from analysis.codes import STATUSES, WARNINGS
from analysis.disk import write_aside
from analysis.markup import table
from analysis.report_laws import sections
from analysis.summary import exponent_rows


def write_report(sweep_dir: Path, plan: dict, rows: pd.DataFrame, fits: dict, figures: list[dict]) -> Path:
    """Write `sweep_dir`/report/index.html and give its path.

    `figures` are what `analysis.figures.write` gave, drawn into `sweep_dir`/report/figures/. Everything that came from
    a user or a file is escaped.
    """
    css = resources.files("analysis").joinpath("page.css").read_text(encoding="utf-8")
    parts = [
        _head(plan, rows, fits),
        _exponents(fits),
        _warnings(fits),
        _figures(figures),
        _budgets(fits),
        *sections(fits),
        _left_out(plan, rows),
        _how(plan, fits),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(str(plan.get('sweep', 'sweep')))}: scaling report</title>\n<style>\n{css}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(section for section in parts if section) + "\n</main>\n</body>\n</html>\n"
    )
    return write_aside(Path(sweep_dir) / "report" / "index.html", page)


def _head(plan: dict, rows: pd.DataFrame, fits: dict) -> str:
    done = int((rows["state"] == "done").sum())
    good = sum(budget["status"] == "bracketed" for budget in fits["budgets"])
    flops = rows.loc[rows["state"] == "done", "flops_dense"].sum()
    seeds = rows.loc[rows["state"] == "done", "seed"].nunique()
    cards = [(f"{done} / {len(rows)}", "runs done"), (f"{good} / {len(fits['budgets'])}", "valleys bracketed")]
    cards += [(str(seeds), "seeds"), (f"{flops:.2g}" if done else "0", "dense FLOPs trained")]
    boxes = "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for value, words in cards)
    question = str(plan.get("question") or "What does this sweep say?")
    return (
        f'<header><p class="sweep">sweep <code>{escape(str(plan.get("sweep", "")))}</code></p>'
        f'<h1>{escape(question)}</h1></header>\n<p class="answer">{escape(_answer(fits))}</p>\n<div class="cards">{boxes}</div>'
    )


def _answer(fits: dict) -> str:
    """The laws in one or two sentences."""
    laws = fits["laws"]
    if laws["n_latents"] is None:
        return "No exponent yet: an exponent needs at least three budgets whose minimum lies inside the sampled sizes."
    a, p, q = (laws[name]["exponent"]["estimate"] for name in ("loss", "n_latents", "n_tokens"))
    return (
        f"Ten times the compute multiplies the best loss by {10**-a:.2f}, the best dictionary size by {10**p:.2g} and the"
        f" best number of training tokens by {10**q:.2g} (exponents {-a:.3f}, {p:.2f}, {q:.2f}), within the range measured"
        " here."
    )


def _exponents(fits: dict) -> str:
    rows = []
    for name, estimate, low, high, note in exponent_rows(fits):
        limits = "" if low is None else f"{low:.3f} to {high:.3f}"
        rows.append([name, "-" if estimate is None else f"{estimate:.3f}", limits or "-", note])
    columns = [("law", False), ("estimate", True), ("95 % interval", True), ("note", False)]
    words = (
        "Intervals hold seed noise and the scatter of the budgets around each law. They do not hold what would shift all"
        " budgets together: the learning-rate rule, the kind of SAE, the way a valley is fitted, another held-out text."
    )
    return f'<h2>Exponents</h2>\n{table(columns, rows)}\n<p class="quiet">{escape(words)} {escape(_other_fits(fits))}</p>'


def _other_fits(fits: dict) -> str:
    """How far the answer depends on the valley fit, and what the hold-out test said."""
    out = []
    if fits["checks"]:
        forms = fits["checks"]["n_latents_exponent"].items()
        values = [f"{form} {check['exponent']:.3f}" for form, check in forms if check["exponent"] is not None]
        out.append(f"p by the form of the valley fit: {', '.join(values)}.")
    if fits["hold_out"]:
        hold = fits["hold_out"]
        n, loss = hold["n_latents"], hold["loss"]
        out.append(
            f"Fitted without the largest budget, the laws predict n* = {n['predicted']:,.0f} there (seen {n['seen']:,.0f},"
            f" {n['error_percent']:+.1f} %) and L* = {loss['predicted']:.4g} (seen {loss['seen']:.4g},"
            f" {loss['error_percent']:+.1f} %)."
        )
    return " ".join(out)


def _warnings(fits: dict) -> str:
    items = [(code, "") for code in fits["warnings"]]
    items += [(code, f"C = {b['target_flops']:.3g}: ") for b in fits["budgets"] for code in b["warnings"]]
    if not items:
        return ""
    lines = "".join(
        f"<li>{escape(where)}{escape(WARNINGS.get(code, code))} <code>{escape(code)}</code></li>\n" for code, where in items
    )
    return f'<h2>Read with care</h2>\n<ul class="notes">\n{lines}</ul>'


def _figures(figures: list[dict]) -> str:
    blocks = []
    for figure in figures:
        svg, png = (f"figures/{escape(figure[kind], quote=True)}" for kind in ("svg", "png"))
        title, caption = escape(figure["title"]), escape(figure["caption"])
        blocks.append(
            f'<figure><a href="{svg}"><img src="{svg}" alt="{title}. {caption}" loading="lazy"></a>\n'
            f'<figcaption><b>{title}</b>{caption} <a href="{png}" download>PNG</a></figcaption></figure>'
        )
    return "<h2>Figures</h2>\n" + "\n".join(blocks) if blocks else ""


def _budgets(fits: dict) -> str:
    columns = [("budget, FLOPs", True), ("status", False), ("sizes", True), ("n*", True), ("95 %", True)]
    columns += [("T*", True), ("L*", True), ("best run", True)]
    rows = []
    for b in fits["budgets"]:
        best = f"{b['best_sampled']['y']:.4g} at {b['best_sampled']['n_latents']:,}" if b["points"] else "-"
        status = "bracketed" if b["status"] == "bracketed" else STATUSES.get(b["status"], b["status"])
        n, tokens, y = b["n_opt"], b["tokens_opt"], b["y_opt"]
        limits = f"{n['lo']:,.0f} to {n['hi']:,.0f}" if n and n["lo"] is not None else "-"
        rows.append([f"{b['target_flops']:.3g}", status, f"{len(b['points'])} of {b['n_sizes_planned']}"])
        rows[-1] += [f"{n['estimate']:,.0f}" if n else "-", limits, f"{tokens['estimate']:,.0f}" if n else "-"]
        rows[-1] += [f"{y['estimate']:.4g}" if n else "-", best]
    return f"<h2>Budgets</h2>\n{table(columns, rows, marked=1)}" if rows else ""


def _left_out(plan: dict, runs: pd.DataFrame) -> str:
    out = ""
    unfinished = runs[runs["state"] != "done"]
    if len(unfinished):
        rows = [[row.run_id, row.state, row.reason] for row in unfinished.itertuples()]
        listing = table([("run", False), ("state", False), ("reason", False)], rows)
        out += f"<h2>Runs without a result</h2>\n{_folded(listing, len(rows), 'runs')}\n"
    noted = runs[(runs["state"] == "done") & (runs["reason"] != "")]
    if len(noted):
        listing = table([("run", False), ("what is missing", False)], [[r.run_id, r.reason] for r in noted.itertuples()])
        out += f"<h2>Results with a gap</h2>\n{_folded(listing, len(noted), 'runs')}\n"
    excluded = plan.get("excluded") or []
    if excluded:
        rows = [[e.get("grid", ""), _cell(e.get("cell", {})), e.get("reason", "")] for e in excluded]
        listing = table([("grid", False), ("cell", False), ("reason", False)], rows)
        out += f"<h2>Cells excluded from the plan</h2>\n{_folded(listing, len(rows), 'cells')}\n"
    return out


def _cell(cell: dict | str) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in cell.items()) if isinstance(cell, dict) else str(cell)


def _plain(value: object) -> str:
    """4e+11 rather than 400000000000.0, 16 rather than 16.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _folded(listing: str, count: int, what: str) -> str:
    """Long lists start closed."""
    return listing if count <= 8 else f"<details><summary>{count} {what}</summary>\n{listing}</details>"


def _how(plan: dict, fits: dict) -> str:
    recipe = fits["recipe"] or {}
    rows, drawn = fits["rows"], fits["bootstrap"]
    pairs = [
        ("y", f"{fits['axes']['y']}: {fits['axes']['y_words']}"),
        ("x", f"{fits['axes']['x']}: {fits['axes']['x_words']}"),
        ("recipe", ", ".join(f"{key} {_plain(value)}" for key, value in recipe.items() if value is not None) or "-"),
        ("rows", f"{rows['used']} used, {rows['done']} done, {rows['planned']} planned with a budget"),
        ("intervals", f"{drawn.get('method', '-')}; {drawn['draws']} draws, seed {drawn['seed']}"),
        ("plan", str(plan.get("plan_hash", "-"))),
        ("data", str(fits["data_hash"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in fits["versions"].items())),
    ]
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>\n" for key, value in pairs)
    links = '<a href="../table.csv">table.csv</a>, <a href="../fits.json">fits.json</a>, <a href="../plan.json">plan.json</a>'
    return f'<h2>How this was made</h2>\n<dl>\n{items}</dl>\n<p class="quiet">Everything above comes from {links}.</p>'
