"""What a person sees of the work around a cluster: jobs before they are submitted, progress, causes."""

from __future__ import annotations

import sys
from typing import Any

from rich.markup import escape
from rich.table import Table

from saescale.campaign import cluster
from saescale.campaign.choice import Choice
from saescale.campaign.plan import Plan
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
