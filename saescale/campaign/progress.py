"""How far a sweep is: share done, tokens/s and ETA of every run under way, and of the whole. From disk alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saescale.campaign import price
from saescale.campaign.plan import PlannedRun
from saescale.campaign.status import RunState


@dataclass(frozen=True)
class Progress:
    """`fraction` in [0, 1]; `tokens_per_s` and `eta_s` are None until there is something to measure."""

    fraction: float
    tokens_per_s: float | None
    eta_s: float | None


def of_run(run: PlannedRun, state: RunState) -> Progress:
    """A run's own progress: what its last checkpoint said, moved on by its speed since."""
    said = state.progress or {}
    n_tokens = said.get("n_tokens") or run.science["train"]["n_tokens"]
    if state.state == "done":
        return Progress(1.0, None, 0.0)
    tokens, rate = said.get("tokens", 0), said.get("tokens_per_s") if state.state == "running" else None
    if rate:
        tokens += rate * min(time.time() - said["heartbeat"], 300.0)
    tokens = min(tokens, n_tokens)
    return Progress(tokens / n_tokens, rate, (n_tokens - tokens) / rate if rate else None)


def of_sweep(runs: Sequence[PlannedRun], found: Mapping[str, RunState]) -> Progress:
    """By dense FLOPs. The ETA holds while as many runs and jobs train at once as now, each run's evaluation at its end included;
    None while none has said its speed."""
    each = {r.run_id: of_run(r, found[r.run_id]) for r in runs}
    total = sum(r.flops_dense for r in runs)
    done = sum(r.flops_dense * each[r.run_id].fraction for r in runs)
    rate = sum((each[r.run_id].tokens_per_s or 0) * r.flops_dense / r.science["train"]["n_tokens"] for r in runs)
    jobs = {(found[r.run_id].progress or {}).get("job") for r in runs if found[r.run_id].state == "running"}
    ends = sum(price.end_seconds(r) for r in runs if found[r.run_id].state != "done") / max(len(jobs), 1)
    return Progress(done / total if total else 1.0, None, (total - done) / rate + ends if rate else None)
