"""Latents in the terminal: a card, what steering did, how dictionaries split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from saescale.screen import console, number, say

BLOCKS = " ▁▂▃▄▅▆▇█"
SHOWN_TOP = 6
LINE = {"\n": "⏎", "\t": "⇥", "\r": "␍"}  # a context is one line of the terminal


def show_card(card: Mapping[str, Any], path: str) -> None:
    console.print()
    console.print(f"[bold]latent {card['latent']}[/] of {escape(card['run_id'])}", soft_wrap=True)
    concept, text = card["concept"], card["text"]
    if concept:
        score = "not scored" if concept["score"] is None else f"score {concept['score']:.2f}"
        console.print(f"best latent for [bold]{escape(concept['concept'])}[/] ({escape(concept['category'])}): {score}, "
                      f"frequency {concept['frequency']:.2g}")
    console.print(f"{card['state']}: fires on {card['n_fired']:,} of {text['n_tokens']:,} {text['split']} tokens "
                  f"({card['firing_rate']:.2g}), at most {card['max']:.3g}; decoder norm {card['decoder_norm']:.3g}")
    if card["state"] == "silent":
        console.print("[yellow]It never fired on this text: dead, or rarer than the text is long. "
                      "--text train --tokens N looks further.[/]", soft_wrap=True)
    else:
        console.print(f"activations 0 to {card['max']:.3g}, counts on a log scale: [cyan]{bars(card['histogram'])}[/]")
        console.print("[dim]where it fires most[/]")
        for place in card["top"][:SHOWN_TOP]:
            console.print(context_line(place, card["max"]), soft_wrap=False, no_wrap=True, overflow="crop")
        _buckets(card)
    _logits(card["logits"])
    _neighbours(card["neighbours"])
    console.print(f"[dim]{escape(path)}[/]", soft_wrap=True)


def _buckets(card: Mapping[str, Any]) -> None:
    console.print("[dim]samples by strength[/]")
    for bucket in reversed(card["buckets"]):
        label = f"{bucket['low']:>6.2f} to {bucket['high']:.2f} [dim]({number(bucket['n'])})[/]"
        console.print(label)
        for place in bucket["examples"][:1]:
            console.print(context_line(place, card["max"]), soft_wrap=False, no_wrap=True, overflow="crop")


def _logits(logits: Mapping[str, Any] | None) -> None:
    if logits is None:
        console.print("[dim]no logit effects: this hook does not write into the residual stream[/]")
        return
    for side, label in (("top", "raises"), ("bottom", "lowers")):
        tokens = "  ".join(f"{visible(token)!r} {effect:+.2f}" for token, effect in logits[side][:8])
        console.print(f"[dim]{label}[/] {escape(tokens)}", soft_wrap=True)


def _neighbours(neighbours: Sequence[Mapping[str, Any]]) -> None:
    if not neighbours:
        console.print("[dim]no other finished dictionary of the sweep to look for it in[/]")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("n_latents", "seed", f"cosine ≥ {neighbours[0]['same_direction_from']:g}", "nearest latents (cosine)"):
        table.add_column(name, justify="left" if "nearest" in name else "right")
    for other in neighbours:
        nearest = ", ".join(f"{latent} ({cosine:.2f})" for latent, cosine in other["nearest"][:4])
        table.add_row(f"{other['n_latents']:,}", str(other["seed"]), str(other["n_same_direction"]), nearest)
    console.print(table)


def bars(counts: Sequence[int]) -> str:
    """A histogram in one line, heights by the logarithm of 1 + count."""
    from math import log1p

    top = log1p(max(counts, default=0)) or 1.0
    return "".join(BLOCKS[0 if not c else max(1, round(log1p(c) / top * (len(BLOCKS) - 1)))] for c in counts)


def visible(token: str) -> str:
    return "".join(LINE.get(c, c) for c in token)


def context_line(place: Mapping[str, Any], highest: float) -> Text:
    """One context, tokens shaded by activation, the peak underlined and in one column for all contexts."""
    tokens, column = [visible(t) for t in place["tokens"]], console.width * 3 // 5
    first = place["peak"]
    while first > 0 and sum(map(len, tokens[first - 1:place["peak"]])) <= column:
        first -= 1
    line = Text(" " * (column - sum(map(len, tokens[first:place["peak"]]))))
    for i in range(first, len(tokens)):
        share = min(place["acts"][i] / highest, 1.0) if highest else 0.0
        style = "" if share <= 0 else f"black on rgb(255,{int(235 - 125 * share)},{int(190 - 150 * share)})"
        line.append(tokens[i], style=f"{style} bold underline".strip() if i == place["peak"] else style)
    return line


def show_steered(found: Mapping[str, Any], following: str) -> None:
    console.print(f"[bold]latent {found['latent']}[/] of {escape(found['run_id'])}, clamped to multiples of its maximum "
                  f"{found['max']:.3g} ({found['text']['split']} text)", soft_wrap=True)
    if found["prompt"] is not None:
        console.print(f"[dim]prompt[/] {escape(visible(found['prompt']))}", soft_wrap=True)
    for text in found["texts"]:
        scale = "untouched" if text["scale"] is None else f"x {text['scale']:g}"
        console.print(f"{scale:>10}  {escape(visible(text['text']))}", soft_wrap=True)
    concept = found["concept"]
    if concept:
        table = Table(box=None, pad_edge=False, header_style="dim",
                      title=f"change of the log-probability of {escape(repr(concept['concept']))}, nats", title_justify="left",
                      title_style="")
        for name in ("scale", "its latent", "random direction", "size of the push / activation"):
            table.add_column(name, justify="right")
        for i, scale in enumerate(found["scales"]):
            own, other = (mean_of_halves(concept[arm], i) for arm in ("trained", "random"))
            table.add_row(f"{scale:g}", f"{own:+.2f}", f"{other:+.2f}", f"{concept['trained']['relative_size'][i]:.2f}")
        console.print(table)
    say("", following)


def mean_of_halves(arm: Mapping[str, Any], i: int) -> float:
    return (arm["first"][i] + arm["second"][i]) / 2


def show_steering(found: Mapping[str, Any], following: str) -> None:
    """Mean change over concepts by scale, one row per size and arm."""
    table = Table(box=None, pad_edge=False, header_style="dim",
                  title=f"mean change of the log-probability of {len(found['concepts'])} concepts, nats, by multiple of the "
                  "maximum", title_justify="left", title_style="")
    for name in ("n_latents", "arm", *(f"{s:g}" for s in found["scales"])):
        table.add_column(name, justify="left" if name == "arm" else "right")
    groups: dict[tuple, list] = {}
    for row in found["rows"]:
        groups.setdefault((row["n_latents"], row["arm"]), []).append(row)
    for (size, arm), rows in groups.items():
        means = [sum(mean_of_halves(r, i) for r in rows) / len(rows) for i in range(len(found["scales"]))]
        table.add_row(f"{size:,}", arm, *(f"{m:+.2f}" for m in means))
    console.print(table)
    say("", following)


def show_splitting(found: Mapping[str, Any], following: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = ("smaller", "larger", "", "alive", "larger per smaller (cos ≥ 0.7)", "each other's nearest", "novel")
    for name in names:
        table.add_column(name, justify="left" if name == "" else "right")
    for pair in found["pairs"]:
        per = next(p for p in pair["latents_per_small"] if p["threshold"] == 0.7)
        mean = "-" if per["mean"] is None else f"{per['mean']:.2f}"
        novel = "-" if pair["novel_fraction"] is None else f"{pair['novel_fraction']:.0%}"
        table.add_row(f"{pair['small']:,}", f"{pair['large']:,}", "" if pair["trained"] else "untrained control",
                      f"{pair['n_small_alive']:,}, {pair['n_large_alive']:,}", mean, f"{pair['mutual']:,}", novel)
    console.print(table)
    text = found["text"]
    say(f"{text['n_tokens']:,} {text['split']} tokens; novel: added to the smaller dictionary it lowers the error", following)


def show_probing(found: Mapping[str, Any], following: str) -> None:
    """Mean accuracy by dictionary and k, with standard errors over concepts."""
    cells = {(s["dictionary"], s["n_latents"], s["k"]): s for s in found["summary"]}
    table = Table(box=None, pad_edge=False, header_style="dim", title="accuracy on unseen documents (guessing: .5)",
                  title_justify="left", title_style="")
    for name in ("dictionary", "n_latents", *(f"k={k}" for k in found["ks"]), "all"):
        table.add_column(name, justify="left" if name == "dictionary" else "right")
    for kind, n in dict.fromkeys((s["dictionary"], s["n_latents"]) for s in found["summary"]):
        row = [cells.get((kind, n, k)) for k in (*found["ks"], None)]
        table.add_row(kind, f"{n:,}", *("" if c is None else f"{c['accuracy']:.3f} ± {c['accuracy_se'] or 0:.3f}" for c in row))
    console.print(table)
    say(f"{found['n_tasks']} concepts of {', '.join(found['inventories'])} in {found['n_scored_tokens']:,} tokens", following)
