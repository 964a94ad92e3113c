"""Cards of latents as HTML: one pure function from stored cards to a fragment with its own style, and a page around it.

Tokens may hold anything, so every word that comes from a card is escaped. No scripts, nothing from a network.
"""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from math import log1p
from pathlib import Path
from typing import Any

from analysis.disk import write_aside
from saescale.records.latents import read_cards

SHOWN_LINES = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
WIDTH, HEIGHT = 330, 76  # of the histogram, in pixels
NOTE = (
    "Each card shows one latent of one dictionary. Shading is the activation as a share of its maximum on the text named; the"
    " underlined token is the one the line was chosen for. Logit effects are of the decoder direction along the direct path"
    " only: what later layers make of it is left out. What a latent fires on is seen here; what it means is not proved, and"
    " top contexts look cleaner than the samples by strength below them."
)


def cards_html(cards: Sequence[Mapping[str, Any]]) -> str:
    """All cards as one HTML fragment, each folded, with a style scoped to .latent-cards; "" for none.

    `cards` are what records.latents.read_cards gives. Works in light and dark; the same cards give the same bytes.
    """
    if not cards:
        return ""
    css = resources.files("analysis").joinpath("cards.css").read_text(encoding="utf-8")
    body = "\n".join(_card(card, opened=i == 0) for i, card in enumerate(cards))
    return f'<style>\n{css}</style>\n<div class="latent-cards">\n<p class="lc-quiet">{escape(NOTE)}</p>\n{body}\n</div>'


def cards_section(sweep_dir: Path) -> str:
    """The part of a sweep's report that shows its cards; "" where it has none."""
    cards = read_cards(sweep_dir)
    return f"<h2>Latents</h2>\n{cards_html(cards)}" if cards else ""


def write_cards(sweep_dir: Path) -> Path:
    """A page of its own with all cards of a sweep, `sweep_dir`/latents/index.html; gives its path."""
    css = resources.files("analysis").joinpath("page.css").read_text(encoding="utf-8")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(sweep_dir.name)}: latents</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="sweep">sweep <code>{escape(sweep_dir.name)}</code></p><h1>Latents</h1></header>\n'
        f"{cards_html(read_cards(sweep_dir))}\n</main>\n</body>\n</html>\n"
    )
    return write_aside(sweep_dir / "latents" / "index.html", page)


def _card(card: Mapping[str, Any], opened: bool) -> str:
    text = card["text"]
    head = f"<b>latent {card['latent']}</b> <span>{escape(_whose(card))}</span>"
    parts = [
        f'<p class="lc-quiet">{escape(_facts(card, text))}</p>',
        *([_lines("Where it fires most", card["top"], card["max"]), _samples(card)] if card["state"] == "alive" else []),
        f'<div class="lc-columns">{_histogram(card)}{_logits(card["logits"])}</div>',
        _neighbours(card["neighbours"]),
    ]
    inside = "\n".join(part for part in parts if part)
    return f'<details{" open" if opened else ""}><summary>{head}</summary>\n{inside}\n<p class="lc-end"></p></details>'


def _whose(card: Mapping[str, Any]) -> str:
    concept = card["concept"]
    run = f"n_latents {card['n_latents']:,}, {card['kind']}, {card['run_id']}"
    if concept is None:
        return run
    score = "not scored" if concept["score"] is None else f"score {concept['score']:.2f}"
    return f"best for {concept['concept']} ({concept['category']}, {score}) · {run}"


def _facts(card: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    said = (f"Fires on {card['n_fired']:,} of {text['n_tokens']:,} {text['split'].replace('_', '-')} tokens of {text['corpus']}"
            f" (rate {card['firing_rate']:.2g}), at most {card['max']:.3g}.")
    if card["state"] == "alive":
        return said
    return f"{said} It is silent on this text: dead, or rarer than the text is long."


def _lines(title: str, places: Sequence[Mapping[str, Any]], highest: float) -> str:
    lines = "\n".join(_line(place, highest) for place in places)
    return f'<h4>{escape(title)}</h4>\n<div class="lc-lines">{lines}</div>' if places else ""


def _line(place: Mapping[str, Any], highest: float) -> str:
    out = []
    for i, (token, act) in enumerate(zip(place["tokens"], place["acts"], strict=True)):
        shown = escape("".join(SHOWN_LINES.get(c, c) for c in token))
        share = min(act / highest, 1.0) if highest else 0.0
        if i == place["peak"]:
            out.append(f'<b style="--a:{share:.2f}" title="{act:.3g}">{shown}</b>')
        else:
            out.append(f'<span style="--a:{share:.2f}" title="{act:.3g}">{shown}</span>' if share > 0 else shown)
    return f'<p class="lc-text"><i>{place["acts"][place["peak"]]:.2f}</i>{"".join(out)}</p>'


def _samples(card: Mapping[str, Any]) -> str:
    out = ""
    for bucket in reversed(card["buckets"]):
        title = f"Samples from {bucket['low']:.2f} to {bucket['high']:.2f} ({bucket['n']:,} tokens)"
        out += _lines(title, bucket["examples"], card["max"]) + "\n"
    return f'<details><summary><span>samples by strength</span></summary>\n{out}</details>'


def _histogram(card: Mapping[str, Any]) -> str:
    counts, n = card["histogram"], len(card["histogram"])
    top, step = log1p(max(counts, default=0)) or 1.0, WIDTH / max(n, 1)
    bars = ""
    for i, count in enumerate(counts):
        height = HEIGHT * log1p(count) / top
        bars += (f'<rect x="{i * step:.1f}" y="{HEIGHT - height + 2:.1f}" width="{step - 2:.1f}" height="{height:.1f}">'
                 f"<title>{count:,}</title></rect>")
    silent = card["text"]["n_tokens"] - card["n_fired"]
    axis = (f'<text x="0" y="{HEIGHT + 17}">0</text>'
            f'<text x="{WIDTH}" y="{HEIGHT + 17}" text-anchor="end">{card["max"]:.3g}</text>'
            f'<text x="{WIDTH / 2}" y="{HEIGHT + 17}" text-anchor="middle">activation (silent on {silent:,})</text>')
    return (f'<div><h4>How strongly it fires, counts on a log scale</h4><svg role="img" aria-label="histogram of activations"'
            f' width="{WIDTH}" height="{HEIGHT + 22}" viewBox="0 0 {WIDTH} {HEIGHT + 22}">{bars}{axis}</svg></div>')


def _logits(logits: Mapping[str, Any] | None) -> str:
    if logits is None:
        return '<div><h4>Logit effects</h4><p class="lc-quiet">None: this hook does not write into the residual stream.</p></div>'
    rows = ""
    for (up, plus), (down, minus) in zip(logits["top"], logits["bottom"], strict=True):
        rows += (f'<tr><td><code>{_token(up)}</code></td><td class="n up">{plus:+.2f}</td>'
                 f'<td><code>{_token(down)}</code></td><td class="n down">{minus:+.2f}</td></tr>\n')
    return ("<div><h4>Logit effects of its direction</h4><table><tr><th>raises</th><th></th><th>lowers</th><th></th></tr>\n"
            f"{rows}</table></div>")


def _token(token: str) -> str:
    return escape("".join(SHOWN_LINES.get(c, c) for c in token).replace(" ", "␣"))


def _neighbours(neighbours: Sequence[Mapping[str, Any]]) -> str:
    if not neighbours:
        return '<p class="lc-quiet">No other finished dictionary of the sweep to look for it in.</p>'
    same = neighbours[0]["same_direction_from"]
    rows = ""
    for other in neighbours:
        nearest = ", ".join(f"{latent} ({cosine:.2f})" for latent, cosine in other["nearest"])
        rows += (f'<tr><td class="n">{other["n_latents"]:,}</td><td class="n">{other["seed"]}</td>'
                 f'<td class="n">{other["n_same_direction"]}</td><td>{escape(nearest)}</td></tr>\n')
    head = f'<th class="n">n_latents</th><th class="n">seed</th><th class="n">cosine ≥ {same:g}</th><th>nearest (cosine)</th>'
    return (
        "<h4>In other dictionaries of the sweep: nearest latents by decoder cosine</h4>\n"
        f"<table><tr>{head}</tr>\n{rows}</table>"
    )
