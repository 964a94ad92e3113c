"""What the verbs of the door share: their arguments, the plan they speak of, and the command to type next."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="Name of a file in sweeps/.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides in Hydra's grammar.")]
StoreRoot = Annotated[Path, typer.Option("--store", envvar="SAESCALE_STORE", help="Where runs are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
RUNS = Path("runs")


def plan_of(sweep: str, overrides: list[str] | None, root: Path, save_it: bool = True) -> tuple[Any, Any]:
    """(the plan of a sweep, the store); saved as the sweep's plan.json unless nothing may be written."""
    from saescale.campaign.plan import make_plan, save
    from saescale.campaign.probe import calibrated
    from saescale.campaign.sweep import load
    from saescale.records.store import Store

    store = Store(root.absolute())
    if save_it:
        store.require_writable()
    planned = calibrated(make_plan(load(sweep, overrides or []), store), store)
    if save_it:
        save(planned, store)
    return planned, store


def again(sweep: str, overrides: list[str] | None, store: Path) -> str:
    """The sweep, its overrides and its store as the user may type them again."""
    import shlex

    return shlex.join([sweep, *(overrides or []), *(["--store", str(store)] if store != RUNS else [])])


def chosen(only: str | None, limit: int | None, max_gpu_hours: float | None) -> str:
    """What a launch was narrowed by, as the user may type it again: without it the next one would train all, without the gate."""
    import shlex

    given = {"--only": only, "--limit": limit, "--max-gpu-hours": max_gpu_hours}
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)


def print_json(value: Any) -> None:
    import json

    print(json.dumps(plain(value), indent=1, default=str, allow_nan=False))


def plain(value: Any) -> Any:
    """`value` with null where a number is missing: NaN is no JSON, and jq and browsers refuse the whole of it."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
