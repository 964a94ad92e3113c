"""The verbs of the dashboard: sync what was tracked offline, and write the wandb workspace."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from saescale.door import RUNS, Json, Overrides, StoreRoot, SweepName, again, print_json

PROJECT = "saescale"  # where nothing else is said
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


def dashboard(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS,
              show: Annotated[bool, typer.Option("--print", help="Print the workspace as JSON; asks no server.")] = False,
              push: Annotated[bool, typer.Option("--push", help="Save it on the server, with the laws and figures.")] = False,
              ) -> None:
    """The sweep's wandb workspace as code: losses, valleys, quality, throughput, the grid, the laws."""
    from saescale import screen
    from saescale.campaign.sweep import load
    from saescale.records.store import Store
    from saescale.track import follow
    from saescale.track.tracked import Book, planned

    follow.require_workspaces()
    asked, at = load(sweep, overrides or []), Store(store.absolute())
    _require_plan(at, asked.folder_name, again(sweep, overrides, store))
    runs, folder = planned(at, asked.folder_name), at.sweep_dir(asked.folder_name) / "track"
    (project, entity), place = _where(overrides or []), Book(folder).place()
    project, entity = project or place.get("project"), entity or place.get("entity")
    if push:
        at.require_writable()
        for line in _push(runs, folder, _laws(sweep, overrides or [], store), project, entity):
            screen.say(line, None)
        return
    from saescale.track.workspace import spec, titles, workspace

    space = workspace(runs, Book(folder), entity or os.environ.get("WANDB_ENTITY") or "ENTITY",
                      project or os.environ.get("WANDB_PROJECT") or PROJECT)
    if show:
        print_json(spec(space))
        return
    for line in titles(space):
        screen.say(line, None)
    screen.say(f"{len(runs)} runs, coloured by dictionary size.", f"saescale dashboard {again(sweep, overrides, store)} --push")


def _push(runs: Any, folder: Any, laws: Any, project: str | None, entity: str | None) -> list[str]:
    """Save the workspace and the laws; says what was done. Raises ValueError when the server will not."""
    from saescale.records.store import read_json, write_json
    from saescale.track.client import Client, Unreachable
    from saescale.track.laws import push_laws
    from saescale.track.tracked import Book
    from saescale.track.workspace import push, workspace

    client = Client(folder, project, entity)
    try:
        where = client.connect()
        book = folder / "workspace.json"
        known = read_json(book) or {}
        said = push(workspace(runs, Book(folder), client.entity, client.project), known if known.get("where") == where else {})
        write_json(book, said | {"where": where})
        lines = [f"workspace: {said['url']}"]
        if laws is None:
            return [*lines, "no laws yet: `saescale collect`, `fit` and `figures`, then push again to see them there."]
        sent = push_laws(client, laws, where)
        return [*lines, "laws, table and figures sent." if sent else "laws: unchanged since the last push."]
    except Unreachable as e:
        raise ValueError(f"{e}. What is missing is sent when you push again.") from e


def _laws(sweep: str, overrides: list[str], store: Any) -> Any:
    """What the sweep's fits say, None when it has none yet."""
    from saescale.study import Study
    from saescale.track.laws import Laws

    study = Study.of(sweep, overrides, store)
    if not study.path("fits.json").exists() or not study.path("table.csv").exists():
        return None
    table, exponents = study.table(), study.exponents(study.fits())
    figures = {p.stem: p for p in sorted(study.path("report/figures").glob("*.png"))}
    return Laws(study.plan["sweep"], study.plan["question"], study.plan.get("plan_hash", ""),
                (list(table.columns), table.values.tolist()), (["law", "estimate", "low", "high", "note"], exponents), figures,
                {f"laws/{name}": value for name, value, *_ in exponents if value is not None})


def _require_plan(store: Any, folder: str, command: str) -> None:
    from saescale.records.store import read_json

    if read_json(store.sweep_dir(folder) / "plan.json") is None:  # a damaged one is said here, not by the mirror
        raise ValueError(f"{folder} has no plan in {store.root}. Run `saescale launch {command}` first.")


def _where(overrides: list[str]) -> tuple[str | None, str | None]:
    """Project and entity, when the overrides name them; else the environment and the key decide."""
    said = dict(o.split("=", 1) for o in overrides if "=" in o)
    return said.get("track.project"), said.get("track.entity")


def register(app: typer.Typer) -> None:
    """Put the verbs on the door."""
    app.command()(sync)
    app.command()(dashboard)
