"""The verbs of the dashboard: sync what was tracked offline, and write the wandb workspace."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from saescale.door import RUNS, Json, Overrides, StoreRoot, SweepName, again, print_json

Revive = Annotated[bool, typer.Option("--revive", help="Send runs deleted on the server under another id.")]


def sync(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
         revive: Revive = False) -> None:
    """Upload a sweep to wandb: of every run what the server lacks, from its own metrics. Safe to repeat."""
    from saescale import screen
    from saescale.campaign.sweep import load
    from saescale.records.store import Store
    from saescale.track.follow import Asked, Follower, require_wandb

    asked = load(sweep, overrides or [])
    at = Store(store.absolute())
    require_wandb()
    _require_plan(at, asked.folder_name, again(sweep, overrides, store))
    at.require_writable()
    project, entity = _where(overrides or [])
    follower = Follower(at, Asked(asked.folder_name, "wandb", project, entity, token="sync", sync=True, revive=revive))
    with screen.progress(quiet=json) as bars:
        said = follower.finish(lambda s: bars.stage("sync", s.get("done", 0), s.get("total", 0), s.get("where", "")))
    if said["where"] == "off" and not said["done"] and said["notes"]:
        raise ValueError(" ".join(said["notes"]))
    if json:
        print_json(said)
    else:
        for note in said["notes"]:
            screen.say(note, None)
        screen.say(f"{said['done']} of {said['total']} runs are whole in wandb, at {said['where']}.",
                   f"saescale {'sync' if said['failures'] else 'dashboard'} {again(sweep, overrides, store)}")
    raise typer.Exit(3 if said["failures"] else 0)


def _require_plan(store: Any, folder: str, command: str) -> None:
    if not (store.sweep_dir(folder) / "plan.json").exists():
        raise ValueError(f"{folder} has no plan in {store.root}. Run `saescale launch {command}` first.")


def _where(overrides: list[str]) -> tuple[str | None, str | None]:
    """Project and entity, when the overrides name them; else the environment and the key decide."""
    said = dict(o.split("=", 1) for o in overrides if "=" in o)
    return said.get("track.project"), said.get("track.entity")


def register(app: typer.Typer) -> None:
    """Put the verbs on the door."""
    app.command()(sync)
