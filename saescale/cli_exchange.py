"""The verbs that meet other tools: evaluate, push."""

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


def push(name: Annotated[str, typer.Argument(metavar="RUN|SWEEP", help="A run by its id, or a sweep's folder in the store.")],
         repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="The repository on the hub.")],
         to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Only write what would be uploaded.")] = None,
         dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and their sizes.")] = False,
         private: Annotated[bool, typer.Option("--private", help="A repository that is made is private.")] = False,
         store: StoreRoot = RUNS, json: Json = False) -> None:
    """Upload finished SAEs to the Hugging Face hub as SAELens loads them, with a model card."""
    from saescale import parcel, screen, screen_exchange
    from saescale.records.store import Store

    packed = parcel.pack(Store(store.absolute()), name, repo)
    address = None
    if to is not None:
        parcel.write(packed, to)
    elif not dry_run:
        address = parcel.push(packed, private)
    if json:
        print_json({"repo": repo, "address": address, "files": packed.sizes, "runs": packed.runs,
                    "unfinished": packed.unfinished})
        return
    screen_exchange.show_parcel(packed.sizes, packed.unfinished)
    where = f"written to {to}" if to is not None else f"at {address}" if address else "would be uploaded"
    screen.say(f"{len(packed.runs)} SAEs, {sum(packed.sizes.values()) / 1e6:.2f} MB {where}.", None)


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command()(push)
