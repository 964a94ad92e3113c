"""What a person sees in the terminal. Tables fit 100 columns and show what varies; every screen ends with the next command."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from saescale.campaign import devices, explain, harvest, memory, placement, price
from saescale.campaign.exponent import no_exponent
from saescale.campaign.fleets import fleets
from saescale.campaign.launch import Outcome
from saescale.campaign.plan import Plan
from saescale.campaign.resources import requests
from saescale.campaign.status import STATES, RunState
from saescale.campaign.totals import Totals, totals
from saescale.records.store import Store

console = Console(highlight=False, width=None if Console().is_terminal else 100)
SHOWN_POINTS = 100  # rows of a plan; more are no longer read, and take seconds to lay out
PLAIN_S = 10.0
STAGES = {"tokenise": "tokenise corpus", "harvest": "harvest activations", "train": "train dictionaries",
          "concepts": "score concepts", "probe": "measure speed", "latents": "read latents", "steer": "steer",
          "splitting": "compare dictionaries", "probing": "probe concepts", "evaluate": "measure the SAE",
          "sync": "upload to wandb"}


class Bars:  # a campaign.local.Progress
    """A progress bar per stage with an ETA. Where there is no terminal: a line at the start of a stage, and one more for each
    tenth done, at most every PLAIN_S seconds."""

    def __init__(self, bars: Any, quiet: bool) -> None:
        self.bars, self.quiet, self.tasks, self.said, self.begun = bars, quiet, {}, {}, {}

    def stage(self, name: str, done: float, total: float, note: str) -> None:
        if self.quiet:
            return
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(STAGES[name], total=None, note="starting")
            self.said[name], self.begun[name] = (0, time.monotonic()), time.monotonic()
            if not console.is_terminal:
                console.print(f"{STAGES[name]} ...")
        self.bars.update(self.tasks[name], completed=done, total=total or None, note=escape(note or ("" if done else "starting")))
        if total and not console.is_terminal:
            self.line(name, done / total)

    def line(self, name: str, fraction: float) -> None:
        (told, when), now = self.said[name], time.monotonic()
        if int(10 * fraction) > told and now - when >= PLAIN_S:
            self.said[name], spent = (int(10 * fraction), now), now - self.begun[name]
            console.print(f"{STAGES[name]} {fraction:.0%}, {duration(spent)}, eta {duration(spent * (1 - fraction) / fraction)}")


@contextmanager
def progress(quiet: bool = False) -> Iterator[Bars]:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column

    class Times(ProgressColumn):
        """Seconds gone, and what is left at the speed of the last half minute."""

        def render(self, task: Task) -> str:
            left = task.time_remaining
            return f"{duration(task.elapsed or 0.0):>7}, eta {'?' if left is None else duration(left):<7}"

    whole, last = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    share = TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True))
    columns = (TextColumn("{task.description:<20}", table_column=whole), BarColumn(12 if console.width < 100 else 30), share,
               Times(table_column=Column(no_wrap=True)), TextColumn("[dim]{task.fields[note]}", table_column=last))
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, expand=True) as bars:
        yield Bars(bars, quiet)


def prose(line: str) -> None:
    """Words stay whole in a terminal; for a file or a pipe a line stays a line."""
    console.print(line, soft_wrap=not console.is_terminal)


def say(line: str, following: str | None) -> None:
    console.print(escape(line), soft_wrap=True)
    if following:
        console.print(f"[dim]next:[/] {escape(following)}", soft_wrap=True)


def number(value: float) -> str:
    """12345678 -> '12.3M', 6.25e9 -> '6.25G': tokens and FLOPs at a glance."""
    for size, suffix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:  # 999.9k rounds to 1M, where `.3g` would say 1e+03k
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    return price.spoken(seconds)


def show_plan(plan: Plan, found: Mapping[str, RunState], again: str | None, store: Store) -> None:
    prose(f"[bold]{escape(plan.sweep.folder_name)}[/]  {escape(plan.sweep.question)}")
    todo = [r for r in plan.runs if found[r.run_id].state != "done"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    several = len({r.science["sae"]["kind"] for r in plan.runs}) > 1
    for name in ("grid", "kind", "FLOPs", "n_latents", "tokens", "steps", "lr", "error", "runs", "done"):
        if several or name != "kind":
            table.add_column(name, justify="left" if name in ("grid", "kind") else "right")
    rows = plan_rows(plan, found)
    for grid, kind, *rest in rows[:SHOWN_POINTS]:
        table.add_row(grid, *[kind] * several, *rest)
    console.print(table)
    if len(rows) > SHOWN_POINTS:
        console.print(f"... and {len(rows) - SHOWN_POINTS} more grid points; --json lists all")
    for line in excluded_lines(plan.excluded):
        prose(f"[yellow]excluded[/] {escape(line)}")
    for line in no_exponent(plan):
        prose(f"[yellow]warning:[/] {escape(line)}")
    cost = price.price(todo)
    workers = plan.cluster.workers
    console.print(f"{len(plan.runs)} runs, {len(plan.runs) - len(todo)} done, {len(todo)} to run, {len(plan.excluded)} excluded; "
                  f"{number(cost.flops)} dense FLOPs")
    if todo:
        saved = 1 - cost.tokens / cost.tokens_alone
        prose(f"{price.sources_of(todo)} {duration(cost.seconds / workers)} on {workers} x {plan.cluster.threads} core, "
              f"{cost.disk_gb:.2f} GB of runs, {price.activations_gb(todo, plan.n_train_tokens):.2f} GB of activations; "
              f"shared trunks train {number(cost.tokens)} of {number(cost.tokens_alone)} tokens ({saved:.0%} saved)")
        prose(escape(price.sharing(todo)))
        packed = fleets(todo, plan.cluster)
        lacking = harvest.lacking(todo, store)
        for line in (*harvest.lines(plan, lacking, store), memory.summary(packed, plan.cluster),
                     placement.trains_on(packed, plan.cluster), *placement.summary(packed, plan.cluster),
                     *total_lines(totals(plan, todo, store), price.sources_of(todo))):
            prose(escape(line))
        if refused := harvest.refusal(lacking, packed, plan):
            prose(f"[yellow]launch will refuse:[/] {escape(refused)}")
        for s in found.values():
            if s.state == "damaged":
                prose(f"[yellow]launch will refuse:[/] {escape(s.reason)}")
    if again is not None:
        say(f"plan {plan.plan_hash}", f"saescale launch {again}" if todo else f"saescale collect {again}")


def total_lines(of: Totals, sources: str) -> list[str]:
    """What is harvested first; on a cluster the jobs of each resource group, and the GPU-hours of each budget against the cap."""
    n = len(of.harvest_s)
    lines = [f"harvest: {price.counted(n, 'job')}, the longest estimated {duration(max(of.harvest_s))}"] if n else []
    if not of.groups:
        return lines
    lines += [f"group {g.request.label}: {price.counted(g.n_jobs, 'job')}, {sum(map(len, g.fleets))} runs, the longest "
              f"{duration(g.seconds[0])}, {g.gpu_hours:.3g} GPU-hours" for g in of.groups]
    lines += [f"budget {f'{target:.3g} FLOPs' if target is not None else 'of tokens'}: {price.counted(n, 'run')}, "
              f"{hours:.3g} GPU-hours" for target, (n, hours) in of.budgets.items()]
    harvest = f", {of.harvest_gpu_hours:.3g} of them harvests" if of.harvest_s else ""
    cap = "" if of.cap_gpu_hours is None else (f"; {of.spent_gpu_hours:.3g} spent, cap {of.cap_gpu_hours:g}: "
                                               + ("too much, launch will refuse" if of.passes_cap else "ok"))
    return [*lines, f"total: {of.gpu_hours:.3g} GPU-hours ({sources}){harvest}{cap}"]


def excluded_lines(excluded: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per grid and reason: what its cells have in common, then the values they differ in; seeds left out."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for e in excluded:
        groups.setdefault((e["grid"], e["reason"]), []).append({k: v for k, v in e["cell"].items() if k != "seed"})
    lines = []
    for (grid, reason), cells in groups.items():
        values = {k: list(dict.fromkeys(c[k] for c in cells)) for k in cells[0]}
        shown = " ".join(f"{k}={','.join(f'{v:g}' if isinstance(v, float) else str(v) for v in vs)}" for k, vs in values.items())
        lines.append(f"{grid}: {shown}: {reason}")
    return lines


def plan_rows(plan: Plan, found: Mapping[str, RunState]) -> list[tuple[str, ...]]:
    """One row per grid point, its seeds counted together."""
    groups: dict[tuple, list] = {}
    for r in plan.runs:
        sae, train = r.science["sae"], r.science["train"]
        key = (";".join(r.grids), r.target_flops or 0.0, sae["n_latents"], train["n_tokens"], train["lr"], sae["kind"])
        groups.setdefault(key, []).append(r)
    rows = []
    for (grid, target, n, tokens, lr, kind), runs in sorted(groups.items(), key=lambda item: item[0]):
        flops = runs[0].flops_dense
        error = f"{flops / target - 1:+.2%}" if target else "-"
        done = sum(found[r.run_id].state == "done" for r in runs)
        rows.append((grid, kind, number(flops), str(n), number(tokens), str(runs[0].steps), f"{lr:.2e}", error, str(len(runs)),
                     str(done)))
    return rows


def plan_json(plan: Plan, found: Mapping[str, RunState], store: Store) -> dict[str, Any]:
    out = plan.to_json()
    request = requests(plan.cluster)
    for r, run in zip(out["runs"], plan.runs, strict=True):
        r |= {"state": found[run.run_id].state, **explain.costs(run, request(run), devices.on_gpu(plan.cluster, request(run)))}
    todo = [r for r in plan.runs if found[r.run_id].state != "done"]
    packed = fleets(todo, plan.cluster)
    return out | {"price": vars(price.price(todo)) | {"activations_gb": price.activations_gb(todo, plan.n_train_tokens)},
                  "memory": {"needed_gb": memory.peak_bytes(packed, plan.cluster) / 1e9,
                             "available_gb": memory.limit_bytes(plan.cluster) / 1e9, "n_fleets": len(packed)},
                  "ranks": placement.described(packed, plan.cluster),
                  "device": placement.trains_on(packed, plan.cluster), "sharing": price.sharing(todo),
                  "warnings": no_exponent(plan),
                  "refused": harvest.refusal(harvest.lacking(todo, store), packed, plan) if todo else None,
                  "totals": totals_json(totals(plan, todo, store))}


def totals_json(of: Totals) -> dict[str, Any]:
    groups = [{"request": g.request.label, "jobs": g.n_jobs, "runs": sum(map(len, g.fleets)), "seconds": g.seconds,
               "gpu_hours": g.gpu_hours} for g in of.groups]
    budgets = [{"target_flops": target, "runs": n, "gpu_hours": hours} for target, (n, hours) in of.budgets.items()]
    return vars(of) | {"groups": groups, "budgets": budgets}


def show_outcome(outcome: Outcome, again: str, narrowed: str = "") -> None:
    """`narrowed`: what the launch was narrowed by, for the one that is to follow."""
    for message in outcome.messages:
        prose(f"[red]{escape(message)}[/]")
    for note in outcome.notes:
        prose(escape(note))
    if outcome.started == 0:
        console.print("0 to run: nothing was started.")
    line = ", ".join(f"{n} {s}" for s, n in counts(outcome.states))
    for run_id, s in outcome.states.items():
        if s.state == "failed":
            prose(f"[red]failed[/] {run_id}: {escape(s.reason)}")
    following = {0: "collect", 3: "launch" if outcome.messages else "status", 4: "status"}[outcome.exit_code]
    failed = any(s.state == "failed" for s in outcome.states.values()) and not outcome.messages
    if failed or following == "launch":
        again += narrowed
    say(line, f"saescale launch --retry {again}" if failed else f"saescale {following} {again}")


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {"started": outcome.started, "exit_code": outcome.exit_code, "messages": list(outcome.messages),
            "notes": list(outcome.notes),
            "counts": dict(counts(outcome.states)), "states": states_json(outcome.states)}


def counts(found: Mapping[str, RunState]) -> list[tuple[str, int]]:
    counts = Counter(s.state for s in found.values())
    return [(s, counts[s]) for s in STATES if counts[s]]


def states_json(found: Mapping[str, RunState]) -> dict[str, Any]:
    return {k: {"state": s.state, "reason": s.reason} | ({"progress": dict(s.progress)} if s.progress else {})
            for k, s in found.items()}


def show_laws(rows: Sequence[tuple[str, float | None, float | None, float | None, str]], following: str | None,
              kinds: str = "") -> None:
    """The table of exponents with their 95 % intervals, and what to know of them, each thing once; what `kinds` says of kinds."""
    if kinds:
        prose(escape(kinds))
    elif not rows:
        prose("No exponent: this sweep asks for no compute budget and has no concepts scored.")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, side in (("law", "left"), ("estimate", "right"), ("95 % interval", "right")):
        table.add_column(name, justify=side, no_wrap=True)
    for name, value, low, high, _ in rows:
        shown = "-" if value is None else f"{value:.3f}"
        span = "-" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
        table.add_row(escape(name), shown, escape(span))
    if rows:
        console.print(table)
    for note in dict.fromkeys(part for row in rows for part in (row[4] or "").split("; ") if part):
        prose(f"[dim]{escape(note)}[/]")
    if following:
        say("", following)


def show_verdict(lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """What was predicted, what came out, the error, and whether the 95 % interval held."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("predicted", "95 %", "seen", "error", "held"):
        table.add_column(name, justify="right", no_wrap=True)
    for words, one in lines:
        said = one["predicted"]
        span = "-" if said["lo"] is None else f"[{said['lo']:.4g}, {said['hi']:.4g}]"
        estimate, seen = ("-" if value is None else f"{value:.4g}" for value in (said["estimate"], one["seen"]))
        error = "-" if one["error_percent"] is None else f"{one['error_percent']:+.1f} %"
        held = {True: "yes", False: "no", None: "-"}[one["held"]]
        table.add_row(escape(words), estimate, escape(span), seen, error, held)
        if None not in (ends := one.get("seen_interval") or [None]):
            table.add_row(f"  seen to ±{50 * (ends[1] - ends[0]) / one['seen']:.2g} %")
    console.print(table)
