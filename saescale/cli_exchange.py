"""The verbs that meet other tools: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saescale.door import RUNS, Json, StoreRoot, print_json

Like = Annotated[str, typer.Option("--like", metavar="RUN", help="Measure it as this run was: the beginning or end of its id.")]
InSweep = Annotated[str | None, typer.Option("--sweep", help="The sweep to place it in, where several have the run.")]


def evaluate(path: Annotated[Path, typer.Argument(metavar="PATH", help="An SAE's folder: SAELens', sparsify's or saescale's.")],
             like: Like, store: StoreRoot = RUNS, json: Json = False, sweep: InSweep = None) -> None:
    """Measure an SAE of any of these tools on a run's held-out set, and place it on the sweep's plots."""
    from saescale import screen, screen_exchange
    from saescale.exchange import evaluate_like
    from saescale.records.store import Store

    with screen.progress(quiet=json) as bars:
        kept, content = evaluate_like(Store(store.absolute()), path, like, sweep, bars)
    if json:
        print_json(content)
        return
    screen_exchange.show_measured(content)
    screen.say(f"{kept} written.", f"saescale fit {kept.parent.parent.name}")


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
