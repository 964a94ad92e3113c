"""One page per sweep: the question, the answer, what to be careful about, plots, laws, runs, how it was made.

The page is one file: style, scripts and data stand in it, and it asks for nothing from elsewhere. Pictures and the files it comes
from lie beside it.
"""

import base64
import hashlib
from html import escape
from importlib import resources
from pathlib import Path

import pandas as pd

from analysis import report_laws, report_made, report_plots, report_runs
from analysis.cards import cards_section
from analysis.codes import STATUSES, WARNINGS
from analysis.disk import write_aside
from analysis.markup import data_block, table
from analysis.summary import answer_of_kinds, exponent_rows

SCRIPTS = ("vendor/chart.umd.min.js", "report.js", "zoom.js", "plots.js")
PARTS = {"summary": "Summary", "plots": "Plots", "laws": "Laws", "runs": "Runs", "latents": "Latents", "made": "Provenance"}


def write_report(
    sweep_dir: Path, plan: dict, rows: pd.DataFrame, fits: dict, figures: list[dict], made: dict | None = None
) -> Path:
    """Write `sweep_dir`/report/index.html and give its path; table, fits and plan are copied to report/data/.

    `figures` are what `analysis.figures.write` gave, drawn into `sweep_dir`/report/figures/; `made` what the caller knows of
    versions and machines (see report_made); cards of latents are those in `sweep_dir`/latents/. Everything that came from a
    user or a file is escaped.
    """
    folder = Path(sweep_dir) / "report"
    for name in report_made.KEPT:
        if (Path(sweep_dir) / name).is_file():
            write_aside(folder / "data" / name, (Path(sweep_dir) / name).read_bytes())
    ids = [str(run_id) for run_id in rows["run_id"]]
    sections = {
        "summary": f'<div>{_head(plan, rows, fits)}</div>\n{_warnings(fits)}<div>{_exponents(fits)}</div>',
        "plots": report_plots.section(figures, ids),
        "laws": "\n".join([_budgets(fits), *report_laws.sections(fits)]).strip(),
        "runs": report_runs.section(rows, plan),
        "latents": cards_section(Path(sweep_dir)),
        "made": report_made.section(plan, fits, made or {}),
    }
    data = [data_block("data-runs", report_runs.data(rows)), data_block("data-plots", report_plots.data(figures, ids))]
    return write_aside(folder / "index.html", _page(str(plan.get("sweep", "sweep")), sections, data))


def _page(sweep: str, sections: dict[str, str], data: list[str]) -> str:
    files = resources.files("analysis")
    css = files.joinpath("page.css").read_text(encoding="utf-8")
    scripts = [files.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS]
    sections = {name: body for name, body in sections.items() if body}
    links = "".join(f'<a href="#{name}">{PARTS[name]}</a>' for name in sections)
    body = "\n".join(f'<section id="{name}">\n{content}\n</section>' for name, content in sections.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_allowed(scripts)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(sweep)}: scaling report</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">skip to the report</a>\n'
        f'<nav aria-label="parts"><div><b>{escape(sweep)}</b>{links}'
        '<button type="button" id="theme" title="light, dark, or as the system says">theme</button></div></nav>\n'
        f'<main id="main" tabindex="-1">\n{body}\n</main>\n<div id="tip" role="status" hidden></div>\n'
        '<div id="picked" hidden><span>ringed: <code></code></span> <button type="button" class="find">show in table</button>'
        ' <button type="button" class="clear">clear</button></div>\n'
        + "\n".join([*data, *(f"<script>{script}</script>" for script in scripts)])
        + "\n</body>\n</html>\n"
    )


def _allowed(scripts: list[str]) -> str:
    """The page's policy: it fetches nothing, and of scripts only these run, whatever a run or a question is called."""
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src 'self' file: data:; base-uri 'none'"


def _head(plan: dict, rows: pd.DataFrame, fits: dict) -> str:
    done = int((rows["state"] == "done").sum())
    good = sum(budget["status"] == "bracketed" for budget in fits["budgets"])
    flops = rows.loc[rows["state"] == "done", "flops_dense"].sum()
    seeds = rows.loc[rows["state"] == "done", "seed"].nunique()
    cards = [(f"{done} / {len(rows)}", "runs done")]
    cards += [(f"{good} / {len(fits['budgets'])}", "valleys bracketed")] if fits["budgets"] else []
    cards += [(f"{fits['presence']['n_concepts']:,}", "concepts scored")] if "presence" in fits else []
    cards += [(str(seeds), "seeds"), (f"{flops:.2g}" if done else "0", "dense FLOPs trained")]
    boxes = "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for value, words in cards)
    question = str(plan.get("question") or "What does this sweep say?")
    return (
        f'<header><p class="sweep">sweep <code>{escape(str(plan.get("sweep", "")))}</code></p>'
        f'<h1>{escape(question)}</h1></header>\n<p class="answer">{escape(_answer(fits))}</p>\n<div class="cards">{boxes}</div>\n'
    )


def _answer(fits: dict) -> str:
    """The laws in one or two sentences."""
    if not fits["budgets"]:
        return _answer_of_presence(fits.get("presence")) or answer_of_kinds(fits) or (
            "This sweep asks for no compute budget, so there is no law of compute: read the plots and the table of runs."
        )
    laws = fits["laws"]
    if laws["n_latents"] is None:
        return "No exponent yet: an exponent needs at least three budgets whose minimum lies inside the sampled sizes."
    loss, size, tokens = (laws[name]["exponent"] for name in ("loss", "n_latents", "n_tokens"))
    return (
        f"Ten times the compute multiplies the best loss by {10 ** -loss['estimate']:.2f}, the best dictionary size by"
        f" {10 ** size['estimate']:.2g} and the best number of training tokens by {10 ** tokens['estimate']:.2g}: exponents"
        f" {_bounded(loss, -1)}, {_bounded(size)} and {_bounded(tokens)}, within the range measured here."
    )


def _answer_of_presence(presence: dict | None) -> str:
    """Empty without a fitted exponent of trained dictionaries."""
    joint = presence["joint"] if presence else {}
    q = {}
    for kind in ("trained", "untrained"):
        one = joint.get(kind) or {}
        if one.get("q") is not None:
            lo, hi = one.get("q_interval") or (None, None)
            q[kind] = _bounded({"estimate": one["q"], "lo": lo, "hi": hi}, -1)
    if "trained" not in q:
        return ""
    beside = f", beside {q['untrained']} of untrained dictionaries" if "untrained" in q else ""
    return (f"The frequency at which half of the concepts have a latent goes as the number of alive latents to the power "
            f"{q['trained']}{beside}. The gap between the two, not the exponent alone, is what training did.")


def _bounded(value: dict, sign: int = 1) -> str:
    text = f"{sign * value['estimate']:.2f}"
    if value["lo"] is None or value["hi"] is None:
        return text
    low, high = sorted((sign * value["lo"], sign * value["hi"]))
    return f"{text} (95 %: {low:.2f} to {high:.2f})"


def _exponents(fits: dict) -> str:
    rows = []
    for name, estimate, low, high, note in exponent_rows(fits):
        limits = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        rows.append([name, "-" if estimate is None else f"{estimate:.3f}", limits or "-", note])
    if not rows:
        return ""
    columns = [("law", False), ("estimate", True), ("95 % interval", True), ("note", False)]
    words = (
        "Intervals hold seed noise and the scatter of the budgets around each law. They do not hold what would shift all"
        " budgets together: the learning-rate rule, the kind of SAE, the way a valley is fitted, another held-out text."
    )
    if not fits["budgets"]:
        words = "Intervals hold what differs between concepts, not the choice of the model, its text and the labeller."
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
    """Each warning once, with the budgets it speaks of."""
    where: dict[str, list[str]] = {code: [] for code in fits["warnings"]}
    for budget in fits["budgets"]:
        for code in budget["warnings"]:
            where.setdefault(code, []).append(f"{budget['target_flops']:.3g}")
    if not where:
        return ""
    lines = "".join(
        f"<li>{_at(budgets)}{escape(WARNINGS.get(code, code))} <code>{escape(code)}</code></li>\n"
        for code, budgets in where.items()
    )
    return f'<aside class="care"><h2>Read with care</h2>\n<ul class="notes">\n{lines}</ul></aside>\n'


def _at(budgets: list[str]) -> str:
    return f"C = {', '.join(budgets)}: " if budgets else ""


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
