"""Calibration: short jobs measure tokens/s per device and shape; plans made afterwards use what they found.

What was measured stays in the probe jobs' directories; the newest measurement of a device and shape counts.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from saescale.campaign import devices, local
from saescale.campaign.attempts import read_or_empty
from saescale.campaign.launch import make_job
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.price import shape, step_seconds
from saescale.campaign.resources import requests
from saescale.config import ClusterConfig
from saescale.records import record
from saescale.records.store import Store
from saescale.slurm_site import Request

PROBE_S = 60.0  # of a job with a handful of shapes


@cache
def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def device(cluster: ClusterConfig, request: Request) -> str:
    """What a speed belongs to: this processor, or what a job of the cluster asks for."""
    how = f"{cluster.threads} threads, {cluster.kernels}"
    if cluster.kind != "slurm" and devices.on_gpu(cluster, request):
        return f"{devices.name_of(cluster, request)}, {how}"
    if cluster.kind != "slurm":
        return f"{processor()}, {how}"
    one = request.of_one_process()
    off = ", cpu" if one.gpus and not devices.on_gpu(cluster, request) else ""
    return f"slurm {one.partition or 'default'}, {one.gpus} x {one.gpu_type or 'GPU'}{off}, {one.cpus} cores, {how}"


def measured(store: Store) -> dict[tuple[str, str], dict[str, float]]:
    """(device, shape) -> what was measured, the newest."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    reports = [read_or_empty(p) for p in store.root.glob("jobs/probe-*/probe.json")]
    for report in sorted(reports, key=lambda r: r.get("at", 0)):
        found |= {(report["device"], name): numbers for name, numbers in report.get("measured", {}).items()}
    return found


def calibrated(plan: Plan, store: Store) -> Plan:
    """The plan with the speeds and the peak memory that probes measured for its shapes on its devices."""
    known = measured(store)
    if not known:
        return plan
    request = requests(plan.cluster)

    def with_speed(run: PlannedRun) -> PlannedRun:
        numbers = known.get((device(plan.cluster, request(run)), shape(run.science)))
        return dataclasses.replace(run, tokens_per_s=numbers["tokens_per_s"], peak_gb=numbers["peak_gb"]) if numbers else run

    return dataclasses.replace(plan, runs=tuple(map(with_speed, plan.runs)))


def probe_jobs(plan: Plan, runs: Sequence[PlannedRun], store: Store) -> list[tuple[Request, Path]]:
    """A job per device, with a run of every shape it will train, the smallest first."""
    request = requests(plan.cluster)
    shapes: dict[Request, dict[str, Any]] = {}
    for r in sorted(runs, key=lambda r: r.science["sae"]["n_latents"]):
        shapes.setdefault(request(r), {}).setdefault(shape(r.science), dict(r.science))
    execution = {"threads": plan.cluster.threads, "device": plan.cluster.device, "kernels": plan.cluster.kernels}
    jobs = []
    for asked, of in shapes.items():
        content = {"stage": "probe", "device": device(plan.cluster, asked), "shapes": of, "execution": execution}
        one = asked.of_one_process()
        jobs.append((one, make_job(store, content, request=dataclasses.asdict(one))))
    return jobs


def probe_here(plan: Plan, runs: Sequence[PlannedRun], store: Store, progress: local.Progress) -> list[str]:
    """Run the probes on this machine, one at a time: side by side they would measure each other."""
    return local.run_pool([job for _, job in probe_jobs(plan, runs, store)], 1, "probe", progress)


def estimate_error(runs: Sequence[PlannedRun], store: Store) -> tuple[float, float, int] | None:
    """(seconds estimated, seconds it took, runs) for the training of the finished runs that say how long it took."""
    pairs = [(r.steps * step_seconds(r), read_or_empty(store.run_dir(r.run_id) / record.RESULT).get("wall_s")) for r in runs]
    known = [(estimated, took) for estimated, took in pairs if took]
    if not known:
        return None
    return sum(e for e, _ in known), sum(t for _, t in known), len(known)

