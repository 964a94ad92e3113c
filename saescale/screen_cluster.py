"""What a person sees of the work around a cluster: jobs before they are submitted, progress, causes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from saescale.campaign import cluster
from saescale.campaign.again import ToCancel
from saescale.campaign.choice import Choice
from saescale.campaign.doctor import Check
from saescale.campaign.plan import Plan
from saescale.campaign.tidy import Leaving
from saescale.campaign.triage import Cause, summary, tail
from saescale.records.store import Store
from saescale.screen import console, duration, say


def group_table(shown: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("stage", "asks for", "jobs", "runs", "arrays", "longest", "GPU-hours"):
        table.add_column(name, justify="left" if name in ("stage", "asks for") else "right")
    for g in shown["groups"]:
        table.add_row(g["stage"], escape(g["request"]), str(g["jobs"]), str(g["runs"]), "+".join(map(str, g["arrays"])),
                      duration(g["longest_s"]), f"{g['gpu_hours']:.3g}")
    return table


def show_preview(shown: dict[str, Any], again: str) -> None:
    """The jobs a launch would submit, and what the scheduler said when it was asked."""
    console.print(group_table(shown))
    for g in shown["groups"]:
        if g["accepted"] is not None:
            word = "would accept" if g["accepted"] else "[red]would refuse[/]"
            console.print(f"sbatch {word}: {escape(g['said'])}", soft_wrap=True)
    say(f"{shown['runs']} runs in {shown['jobs']} jobs, {shown['gpu_hours']:.3g} GPU-hours estimated. Nothing was submitted.",
        f"saescale launch {again}")


def confirm_launch(plan: Plan, store: Store, choice: Choice, yes: bool) -> None:
    """Ask before spending, where somebody is there to answer. Raises ValueError when the answer is no."""
    if yes or not (sys.stdin.isatty() and console.is_terminal):
        return
    shown = cluster.preview(plan, store, choice)
    if not shown["jobs"]:
        return
    console.print(group_table(shown))
    if not ask(f"submit {shown['jobs']} jobs, {shown['gpu_hours']:.3g} GPU-hours estimated?"):
        raise ValueError("not confirmed. Nothing was submitted.")


def ask(question: str) -> bool:
    return console.input(f"{escape(question)} \\[y/N] ").strip().lower() in ("y", "yes")


def confirm(question: str, otherwise: str) -> None:
    """Raises ValueError when the answer is no, or when nobody is there to give one."""
    if not (sys.stdin.isatty() and console.is_terminal):
        raise ValueError(f"nobody is there to confirm: give --yes. {otherwise}")
    if not ask(question):
        raise ValueError(f"not confirmed. {otherwise}")


def show_causes(found: Mapping[str, Cause], sweep: str) -> None:
    """One block per class: how many runs, the lines that show it for the first of them, one command."""
    for group in summary(found):
        first = group["runs"][0]
        runs = first if group["n"] == 1 else f"{group['n']} runs, such as {first}"
        console.print(f"[bold]{group['class']}[/]  {escape(runs)}", soft_wrap=True)
        if group["class"] in ("done", "new"):
            continue
        for line in group["evidence"]:
            console.print(f"  [dim]{escape(line[:400])}[/]", soft_wrap=True)
        c = found[first]
        if c.attempt is not None:
            console.print(f"  attempt {c.attempt.name} of {c.n_attempts}: {escape(str(c.attempt))}", soft_wrap=True)
        console.print(f"  [dim]next:[/] {escape(c.command(sweep, first))}", soft_wrap=True)


def show_logs(files: Sequence[tuple[Path, Path]], follow: bool) -> None:
    for attempt, path in files:
        console.print(f"[dim]== attempt {attempt.name} {path.name} ({escape(str(path))})[/]", soft_wrap=True)
        for line in tail(path, 1_000_000):
            print(line)
    if not files:
        console.print("it wrote nothing; `saescale why` reads what the scheduler wrote.")
    if follow and files:
        _follow(files[-1][0])


def _follow(attempt: Path) -> None:
    """Print what the last attempt goes on writing until it ends or a person has seen enough."""
    at = {name: (attempt / name).stat().st_size if (attempt / name).exists() else 0 for name in ("stdout", "stderr")}
    try:
        while not (attempt / "exit.json").exists():
            time.sleep(0.5)
            for name, seen in at.items():
                path = attempt / name
                if path.exists() and path.stat().st_size > seen:
                    with path.open("rb") as f:
                        f.seek(seen)
                        print(f.read().decode(errors="replace"), end="", flush=True)
                        at[name] = f.tell()
    except KeyboardInterrupt:
        return


def show_to_cancel(jobs: Sequence[ToCancel]) -> None:
    for j in jobs:
        shown = ", ".join(j.runs[:2]) + (f" and {len(j.runs) - 2} more" if len(j.runs) > 2 else "")
        console.print(f"{j.element:<10} {j.state:<10} {j.job}  {escape(shown)}", soft_wrap=True)


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows:
        table.add_row(f"[dim]{escape(name)}[/]", escape(value))
    console.print(table)


def show_diff(differs: Mapping[str, Any]) -> None:
    """What came and went since the last plan, the first few of each."""
    for word, key in (("+", "added"), ("-", "removed")):
        for run in differs[key][:20]:
            console.print(f"{word} {run}", soft_wrap=True)
        if len(differs[key]) > 20:
            console.print(f"{word} ... and {len(differs[key]) - 20} more")
    for key, word in (("excluded_now", "now excluded"), ("excluded_no_more", "no longer excluded")):
        for e in differs[key][:20]:
            console.print(f"{word}: {escape(e['grid'])} {escape(str(e['cell']))}: {escape(e['reason'])}", soft_wrap=True)
    before = differs["before"] or "no plan before"
    console.print(f"plan {before} -> {differs['now']}: {len(differs['added'])} added, {len(differs['removed'])} removed, "
                  f"{differs['kept']} kept", soft_wrap=True)


def show_leavings(found: Sequence[Leaving]) -> None:
    for f in found[:40]:
        console.print(f"{f.n_bytes / 1e6:>10.1f} MB  {f.kind:<11} {escape(str(f.path))}: {escape(f.why)}", soft_wrap=True)
    if len(found) > 40:
        console.print(f"... and {len(found) - 40} more")


def show_checks(checks: Sequence[Check]) -> None:
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for c in checks:
        advice = f": {c.advice}" if c.verdict != "ok" and c.advice else ""
        console.print(f"[{colours[c.verdict]}]{c.verdict:<4}[/] {c.name:<14} {escape(c.said)}{escape(advice)}", soft_wrap=True)
