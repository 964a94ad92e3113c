"""A plan read closely: everything about one run, and what differs from the plan before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saescale import flops
from saescale.campaign import devices, memory, placement, price
from saescale.campaign.fleets import fleets
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.resources import requests
from saescale.campaign.status import RunState
from saescale.identity import digest
from saescale.slurm_site import Request


def planned_run(plan: Plan, name: str) -> PlannedRun:
    """The one run of the plan whose id begins or ends with `name`. Raises ValueError when there is none or several."""
    found = [r for r in plan.runs if name and (r.run_id.startswith(name) or r.run_id.endswith(name))]
    if len(found) != 1:
        some = f", such as {found[0].run_id}" if found else ""
        raise ValueError(f"--explain {name!r}: {len(found) or 'no'} runs of {plan.sweep.folder_name} begin or end so{some}. "
                         "Give the id of one, as `saescale plan --json` lists them.")
    return found[0]


def costs(run: PlannedRun, request: Request, on_gpu: bool = False) -> dict[str, Any]:
    """What one run costs trained alone: FLOPs its kernels execute, seconds, GPUs and GPU-hours, memory and disk."""
    s = run.science
    d_in, sae, n_tokens = s["lm"]["d_in"], s["sae"], s["train"]["n_tokens"]
    seconds = price.seconds_alone(run)
    return {"flops_executed": flops.flops_executed(sae["kind"], d_in, sae["n_latents"], n_tokens, float(sae["k"] or 0)),
            "seconds_alone": seconds, "gpus": request.n_gpus, "gpu_hours_alone": seconds / 3600 * request.n_gpus,
            "memory_gb_alone": memory.worker_bytes([[run]], on_gpu=on_gpu) / 1e9, "disk_gb": 8 * d_in * sae["n_latents"] / 1e9,
            "numbers_are": price.source_of(run)}


def explain(plan: Plan, run: PlannedRun, found: Mapping[str, RunState]) -> dict[str, Any]:
    """Everything about one run, by name. Seconds and bytes are estimates; what a fleet shares is told apart."""
    s = run.science
    sae, train = s["sae"], s["train"]
    fleet = next(f for f in fleets(plan.runs, plan.cluster) if run in f)
    trunk = [r for r in fleet if r.trunk_id == run.trunk_id]
    request = requests(plan.cluster)(run)
    placed = placement.place(fleet, plan.cluster)
    error = None if run.target_flops is None else run.flops_dense / run.target_flops - 1
    return {
        "run_id": run.run_id, "trunk_id": run.trunk_id, "grids": list(run.grids), "state": found[run.run_id].state,
        "reason": found[run.run_id].reason,
        "n_latents": sae["n_latents"], "k": sae["k"], "sparsity_coeff": sae["sparsity_coeff"],
        "lr": train["lr"], "seed": train["seed"], "target_flops": run.target_flops, "flops_dense": run.flops_dense,
        "budget_error": error, "n_tokens": train["n_tokens"], "steps": run.steps, "fork_step": price.fork_step(run),
        **costs(run, request, devices.on_gpu(plan.cluster, request)), "asks_for": request.label,
        "device": "cuda" if devices.on_gpu(plan.cluster, request) else "cpu",
        "trunk_shared_by": [r.run_id for r in trunk if r is not run], "job_runs": len(fleet), "job_seconds": placed.seconds,
        "job_ranks": len(placed.rank_bytes), "job_memory_gb": sum(placed.rank_bytes) / 1e9,
        "job_gpu_hours": placed.seconds / 3600 * request.n_gpus}


def diff(before: Mapping[str, Any] | None, plan: Plan) -> dict[str, Any]:
    """Runs and exclusions that came and went since the plan before (plan.json); `before` None: there was none."""
    old = {r["run_id"]: r for r in (before or {}).get("runs", [])}
    new = {r.run_id: r for r in plan.runs}
    out_before = {digest(e): e for e in (before or {}).get("excluded", [])}
    out_now = {digest(e): e for e in plan.excluded}
    added = [r for k, r in new.items() if k not in old]
    return {"before": (before or {}).get("plan_hash"), "now": plan.plan_hash, "kept": len(old.keys() & new.keys()),
            "added": [r.run_id for r in added], "removed": [k for k in old if k not in new],
            "added_flops": sum(r.flops_dense for r in added),
            "excluded_now": [e for k, e in out_now.items() if k not in out_before],
            "excluded_no_more": [e for k, e in out_before.items() if k not in out_now]}


def rows(explained: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The same for a person: names without underscores, numbers as they are read, what is null left out."""
    shown = []
    for key, value in explained.items():
        if value is None or value == [] or value == "":
            continue
        if isinstance(value, float):
            text = f"{value:+.2%}" if key == "budget_error" else f"{value:.4g}"
        elif isinstance(value, list):
            text = ", ".join(value[:3]) + (f" and {len(value) - 3} more" if len(value) > 3 else "")
        else:
            text = str(value)
        shown.append((key.replace("_", " "), text))
    return shown
