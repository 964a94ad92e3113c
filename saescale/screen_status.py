"""Where the runs of a sweep stand, on one screen: bars of what is under way, what stopped and why, counts, what to do next."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from saescale.campaign import price, probe, progress
from saescale.campaign.plan import PlannedRun
from saescale.campaign.status import RunState, states
from saescale.records.store import Store
from saescale.screen import console, counts, duration, number

WATCH_S = 5.0
SHOWN = 30  # runs of one kind on a screen; the counts below tell of all
ENDED = ("stopped", "failed", "damaged")


@dataclass(frozen=True)
class View:
    """What is asked: which sweep, its runs, the command that asks again, and whether only what went wrong is wanted."""

    name: str
    runs: Sequence[PlannedRun]
    again: str
    failed: bool


def watch(view: View, store: Store) -> dict[str, RunState]:
    """Show the sweep until nothing of it is queued or running, or somebody has seen enough."""
    found = states(view.runs, store)
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while any(s.state in ("queued", "running", "unknown") for s in found.values()):
                live.update(render(view, found, most=max(2, (console.height - 6) // 2)), refresh=True)
                time.sleep(WATCH_S)
                found = states(view.runs, store)
    except KeyboardInterrupt:
        pass
    return found


def show(view: View, found: Mapping[str, RunState]) -> None:
    console.print(render(view, found), soft_wrap=not console.is_terminal)


def render(view: View, found: Mapping[str, RunState], most: int = SHOWN) -> RenderableType:
    """At most `most` runs under way and as many that ended early, so that a screen holds all of it."""
    parts: list[RenderableType] = []
    under_way = [r for r in view.runs if found[r.run_id].state in ("running", "unknown")]
    if under_way and not view.failed:
        parts.append(bars(under_way[:most], found))
        parts += more(len(under_way) - most, "under way")
    ended = [r for r in view.runs if found[r.run_id].state in ENDED]
    for r in ended[:most]:
        s = found[r.run_id]
        parts.append(Text.from_markup(f"{s.state:<8} {r.run_id} {progress.of_run(r, s).fraction:.0%} {escape(s.reason)}"))
    parts += more(len(ended) - most, "that ended early")
    whole = progress.of_sweep(view.runs, found)
    ahead = f"; {whole.fraction:.0%} of the compute" + (f", about {duration(whole.eta_s)} to go" if whole.eta_s else "")
    all_done = all(s.state == "done" for s in found.values())
    parts.append(Text(f"{view.name}: " + ", ".join(f"{n} {s}" for s, n in counts(found)) + ("" if all_done else ahead)))
    parts.append(Text.from_markup(f"[dim]next:[/] {escape(following(view, found, bool(ended)))}"))
    return Group(*parts)


def bars(runs: Sequence[PlannedRun], found: Mapping[str, RunState]) -> Table:
    """A row per run under way: bar, tokens/s, ETA, and where it runs if there is room; or that nobody can tell."""
    wide, unit = console.width >= 110, " tokens/s" if console.width >= 90 else "/s"
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in ("run", "bar", "share", "rate", "eta", "where"):
        side = "right" if name in ("share", "rate") else "left"
        table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", ratio=1 if name == "where" and wide else None)
    for r in runs:
        s = found[r.run_id]
        p = progress.of_run(r, s)
        rate = f"{number(p.tokens_per_s)}{unit}" if p.tokens_per_s else ""
        eta = f"eta {duration(p.eta_s)}" if p.eta_s is not None else ""
        where = escape(s.reason) if wide else "" if s.state == "running" else s.state
        bar = ProgressBar(total=1.0, completed=p.fraction, width=16 if wide else 6)
        table.add_row(r.run_id, bar, f"{p.fraction:.0%}", rate, eta, where)
    return table


def more(n: int, what: str) -> list[RenderableType]:
    return [Text(f"... and {n} more {what}")] if n > 0 else []


def following(view: View, found: Mapping[str, RunState], ended: bool) -> str:
    kinds = {s.state for s in found.values()}
    if kinds == {"done"}:
        return f"saescale collect {view.again}"
    if ended:
        return f"saescale why {view.again}" if kinds & {"failed", "damaged"} else f"saescale launch {view.again}"
    return f"saescale {'status --watch' if kinds & {'queued', 'running', 'unknown'} else 'launch'} {view.again}"


def say_estimate(runs: Sequence[PlannedRun], store: Store) -> None:
    """How far the plan's seconds of training were from what it took."""
    found = probe.estimate_error(runs, store)
    if found is not None:
        estimated, took, n = found
        console.print(f"training of {n} runs: {price.sources_of(runs)} {duration(estimated)}, took {duration(took)} "
                      f"(estimate {estimated / took - 1:+.0%})", soft_wrap=True)
