"""Which dictionaries of a sweep stand beside each other: one per size, alike in everything else that can be alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saescale.campaign.plan import PlannedRun
from saescale.campaign.recorded import read
from saescale.campaign.status import state
from saescale.records.store import Damaged, Store, read_json
from saescale.sources import is_synthetic


def sweep_of(store: Store, run_id: str, wanted: str | None) -> tuple[str, Mapping[str, Any]]:
    """(folder name, plan) of the sweep that `run_id` is part of; `wanted` chooses among several. Raises ValueError otherwise."""
    found = {}
    for path in sorted(store.root.glob("*/plan.json")):
        plan = read_json(path)
        if any(r["run_id"] == run_id for r in plan["runs"]):
            found[path.parent.name] = plan
    if wanted is not None:
        if wanted not in found:
            raise ValueError(f"{run_id} is not part of sweep {wanted!r} in {store.root}. "
                             f"It is part of: {', '.join(found) or 'none'}.")
        return wanted, found[wanted]
    if len(found) != 1:
        many = f"{len(found)} sweeps ({', '.join(found)}): choose one with --sweep" if found else (
            "no sweep there: launch one that has it")
        raise ValueError(f"{run_id} is part of {many}.")
    return next(iter(found.items()))


def peers(plan: Mapping[str, Any], science: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The plan's runs that read the same activations with the same kind of SAE as `science`."""
    def reads(s: Mapping[str, Any]) -> list[Any]:
        data = {k: v for k, v in s["data"].items() if k != "data_seed"}
        return [s["lm"], data, s.get("activations"), s["sae"]["kind"]]

    return [r for r in plan["runs"] if reads(r["science"]) == reads(science)]


def rungs(plan: Mapping[str, Any], store: Store) -> list[PlannedRun]:
    """One finished run per dictionary size, rising, of the sweep's concept grid or else of its commonest kind.

    Of several runs of a size: the lowest seed, then the longest horizon. Raises ValueError with fewer than two sizes.
    """
    grid = (plan.get("concepts") or {}).get("grid")
    named = [r for r in plan["runs"] if grid is None or grid in r["grids"]]
    if not named:
        raise ValueError(f"sweep {plan['sweep']} plans no runs.")
    groups = [[r for r in peers(plan, first["science"]) if r in named] for first in named]
    group = max(groups, key=lambda runs: len({r["science"]["sae"]["n_latents"] for r in runs}))
    found = _one_per_size(sorted(group, key=_preference), store)
    if len(found) < 2:
        raise ValueError(f"sweep {plan['sweep']} has {len(found)} finished dictionary sizes of one kind"
                         f"{f' in grid {grid!r}' if grid else ''}: two or more are needed. `saescale launch` trains more.")
    return found


def relatives(plan: Mapping[str, Any], run: PlannedRun, store: Store) -> list[PlannedRun]:
    """The finished dictionaries to look for `run`'s latents in: one of each other size, and one of its own with another seed.

    Of several runs of a size: of its grid, then of its seed, then the longest horizon.
    """
    own = next(r for r in plan["runs"] if r["run_id"] == run.run_id)
    size, seed = run.science["sae"]["n_latents"], run.science["train"]["seed"]

    def nearness(r: Mapping[str, Any]) -> tuple:
        return (not set(r["grids"]) & set(own["grids"]), r["science"]["train"]["seed"] != seed, *_preference(r))

    others = [r for r in peers(plan, run.science)
              if r["science"]["sae"]["n_latents"] != size or r["science"]["train"]["seed"] != seed]
    return _one_per_size(sorted(others, key=nearness), store)


def _preference(r: Mapping[str, Any]) -> tuple:
    return (r["science"]["train"]["seed"], -r["science"]["train"]["n_tokens"], r["run_id"])


def _one_per_size(ordered: list[Mapping[str, Any]], store: Store) -> list[PlannedRun]:
    found: dict[int, PlannedRun] = {}
    for r in ordered:
        size = r["science"]["sae"]["n_latents"]
        if size not in found and store.run_dir(r["run_id"]).is_dir():
            run = read(store, r["run_id"])
            if state(run, store).state == "done":
                found[size] = run
    return [found[size] for size in sorted(found)]


def require_readable(run: PlannedRun, store: Store) -> None:
    """Raise ValueError unless `run` is finished and reads a language model, whose text its latents can be shown on."""
    found = state(run, store)
    if found.state == "damaged":
        raise Damaged(found.reason)
    if found.state != "done":
        raise ValueError(f"{run.run_id} is not finished (it is {found.state}): its latents can be read once it is. "
                         "Run `saescale launch` on its sweep first.")
    if is_synthetic(run.science):
        raise ValueError(f"{run.run_id} was trained on synthetic activations: there is no language model and no text to show "
                         "its latents on. Read n_features_present in its sweep's table instead.")
