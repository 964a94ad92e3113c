"""The verb that reads the language model and trains nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from saescale.door import RUNS, Json, Overrides, StoreRoot, SweepName, again, plan_of, print_json


def harvest(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
            max_disk_gb: Annotated[float | None, typer.Option("--max-disk-gb", help="Stop when the store's activations fill it.")]
            = None) -> None:
    """Fill the activation cache of a sweep, all its hooks in one forward. Safe to repeat, and to run many times at once."""
    from saescale import screen
    from saescale.campaign.fill import fill

    if max_disk_gb is not None and max_disk_gb <= 0:
        raise ValueError(f"--max-disk-gb {max_disk_gb:g} leaves no room: give a number of gigabytes above 0.")
    planned, at = plan_of(sweep, overrides, store)
    with screen.progress(quiet=json) as bars:
        filled = fill(planned, at, bars, max_disk_gb)
    if json:
        print_json({"exit_code": filled.exit_code, "messages": filled.messages, "notes": filled.notes, "full": filled.is_full,
                    "caches": [{"hooks": dict(h.hooks), "missing_shards": len(h.shards), "missing_gb": h.n_bytes / 1e9}
                               for h in filled.after]})
    else:
        for line in (*filled.notes, *filled.messages):
            screen.say(line, None)
        following = {0: "launch", 3: "harvest", 4: "status"}[filled.exit_code]
        made = sum(len(h.shards) for h in filled.before) - sum(len(h.shards) for h in filled.after)
        screen.say("0 shards are missing." if filled.is_full and not made else f"{made} shards harvested.",
                   f"saescale {following} {again(sweep, overrides, store)}")
    raise typer.Exit(filled.exit_code)


def register(app: typer.Typer) -> None:
    """Put the verb on the door."""
    app.command()(harvest)
