"""What a plan costs: seconds, disk, and what sharing trunks saves. Estimates until records say better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from saescale.campaign import lm_cost
from saescale.campaign.plan import PlannedRun
from saescale.flops import EVALUATED_SHARE
from saescale.kinds import KINDS
from saescale.science import fork_step as first_decay_step

# One core, measured on the bundled model: a step costs a fixed part, a part per token and a part per token and latent.
STEP_S, TOKEN_S, TOKEN_LATENT_S = 8e-4, 6e-6, 3.2e-9
EVALUATE_S = 0.7  # export and record
START_S = 5.0  # Python and torch, once per job
ACTIVATION_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Price:
    seconds: float
    seconds_alone: float
    disk_gb: float
    tokens: int
    tokens_alone: int
    flops: float


def trunk_steps(runs: Iterable[PlannedRun]) -> int:
    """Steps really made for runs of one trunk: the trunk to its last fork, and every branch from its own."""
    forks = [(fork_step(r), r.steps) for r in runs]
    return max(f for f, _ in forks) + sum(s - f for f, s in forks)


def fork_step(run: PlannedRun) -> int:
    return first_decay_step(run.steps, run.science["train"]["lr_decay_fraction"])


def shape(science: Any) -> str:
    """What the speed of a step depends on: the kind, the widths, the batch, the precision."""
    s = science
    return (f"{s['sae']['kind']} d_in={s['lm']['d_in']} n_latents={s['sae']['n_latents']} batch={s['train']['batch_tokens']} "
            f"{s['train']['precision']}")


def step_seconds(run: PlannedRun) -> float:
    """Seconds of one training step of one job: as a probe measured it, else estimated for one core."""
    if run.tokens_per_s is not None:
        return run.science["train"]["batch_tokens"] / run.tokens_per_s
    return estimated_step_seconds(run)


def estimated_step_seconds(run: PlannedRun) -> float:
    batch, facts = run.science["train"]["batch_tokens"], KINDS[run.science["sae"]["kind"]]
    dense = 1.0 if facts.keeps_k else float(facts.pair_products)
    return STEP_S + batch * (TOKEN_S + latents_seconds(run) * dense)


def latents_seconds(run: PlannedRun) -> float:
    """Of one token and all latents."""
    return run.science["sae"]["n_latents"] * TOKEN_LATENT_S * (0.5 + run.science["lm"]["d_in"] / 256)


def end_seconds(run: PlannedRun) -> float:
    """Seconds from a run's last step to its record: held-out tokens, the language model's losses, export. On a device that was
    probed, as much less as its steps are faster than estimated."""
    held_out = run.science["eval"]["n_tokens"] * (TOKEN_S + latents_seconds(run) * EVALUATED_SHARE)
    losses = lm_cost.losses_seconds(run) if run.execution.get("lm_path") else 0.0
    return EVALUATE_S + (held_out + losses) * step_seconds(run) / estimated_step_seconds(run)


def seconds_alone(run: PlannedRun) -> float:
    return run.steps * step_seconds(run) + end_seconds(run)


def source_of(run: PlannedRun) -> str:
    """Whether the seconds of a run are measured by a probe or estimated from the constants above."""
    return "estimated" if run.tokens_per_s is None else "calibrated"


def sources_of(runs: Iterable[PlannedRun]) -> str:
    return " and ".join(sorted({source_of(r) for r in runs}))


def counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def sharing(runs: Sequence[PlannedRun]) -> str:
    """One line: which runs share a trunk, and why the others train alone."""
    groups = list(by_trunk(runs).values())
    together = [g for g in groups if len(g) > 1 and any(fork_step(r) for r in g)]
    ramped = sum(len(g) for g in groups if ramps_to_its_end(g[0]))
    only = sum(len(g) == 1 and not ramps_to_its_end(g[0]) for g in groups)
    decaying = sum(len(g) for g in groups if len(g) > 1 and not any(fork_step(r) for r in g))
    parts = [f"{sum(map(len, together))} runs share {counted(len(together), 'trunk')}"] if together else []
    reasons = [f"{only} with the only horizon of their trunk"] if only else []
    reasons += [f"{ramped} whose sparsity ramp lasts the horizon (sae.warmup)"] if ramped else []
    reasons += [f"{decaying} that decay from their first step (train.lr_decay_fraction)"] if decaying else []
    if reasons:
        parts.append(f"alone: {', '.join(reasons)}")
    return "; ".join(parts)


def ramps_to_its_end(run: PlannedRun) -> bool:
    """Its sparsity ramp depends on the horizon, so no other horizon shares its trunk. No ramp at all is none."""
    train = run.science["train"]
    return train["sparsity_warmup_tokens"] >= train["n_tokens"] > 0


def by_trunk(runs: Iterable[PlannedRun]) -> dict[str, list[PlannedRun]]:
    groups: dict[str, list[PlannedRun]] = {}
    for r in runs:
        groups.setdefault(r.trunk_id, []).append(r)
    return groups


def trunk_seconds(runs: Sequence[PlannedRun]) -> float:
    return trunk_steps(runs) * step_seconds(runs[0]) + sum(map(end_seconds, runs))


def activations_gb(runs: Sequence[PlannedRun], n_train_tokens: int) -> float:
    """Disk of the harvested activations, one cache per LM, hook and corpus of `runs`; the held-out split included.

    Live and synthetic activations are never kept.
    """
    caches = {r.execution["cache_key"]: r.science for r in runs if is_cached(r)}
    return sum(n_train_tokens / (1 - s["data"]["held_out_fraction"]) * s["lm"]["d_in"]
               * ACTIVATION_BYTES[s["data"]["activation_dtype"]] for s in caches.values()) / 1e9


def is_cached(run: PlannedRun) -> bool:
    return run.execution.get("source", "cache") == "cache"


def price(runs: Sequence[PlannedRun]) -> Price:
    """Seconds of one core for `runs`, trunks shared; `_alone` is the same with every run trained from scratch."""
    groups = by_trunk(runs).values()
    shared = sum(trunk_steps(g) * g[0].science["train"]["batch_tokens"] for g in groups)
    disk = sum(8 * r.science["lm"]["d_in"] * r.science["sae"]["n_latents"] * (1 + 9 / len(g)) for g in groups for r in g)
    return Price(seconds=sum(map(trunk_seconds, groups)),
                 seconds_alone=sum(map(seconds_alone, runs)),
                 disk_gb=disk / 1e9, tokens=shared, tokens_alone=sum(r.science["train"]["n_tokens"] for r in runs),
                 flops=float(sum(r.flops_dense for r in runs)))
