"""Whether an exponent can come out of a planned sweep: enough budgets that keep enough sizes for a valley."""

from __future__ import annotations

from collections import defaultdict

from saescale.campaign.plan import Plan

SIZES, BUDGETS = 3, 3  # of a valley, and of a law through valleys


def no_exponent(plan: Plan) -> list[str]:
    """One sentence for every grid of valleys at several budgets in which, at some hook, under 3 budgets keep 3 sizes."""
    said = []
    for grid, axes in plan.sweep.grids.items():
        budgets = sorted({float(flops) for flops in axes.get("budget.flops", ())})
        if len(budgets) < 2 or len(set(axes.get("sae.n_latents", ()))) < SIZES:
            continue
        kept: dict = defaultdict(lambda: defaultdict(set))
        for run in plan.runs:
            if grid in run.grids:
                sae, hook = run.science["sae"], run.science["lm"]["hook_name"]
                kept[hook, sae["kind"], sae["k"], sae["target_l0"]][run.target_flops].add(sae["n_latents"])
        counts = min(([len(sizes[flops]) for flops in budgets] for sizes in kept.values()), key=_valleys)
        if _valleys(counts) < BUDGETS:
            each = ", ".join(f"{n} at {flops:g}" for flops, n in zip(budgets, counts, strict=True))
            said.append(f"grid {grid}: no exponent can come out. It takes {BUDGETS} budgets of {SIZES} sizes, better of 5; "
                        f"these keep {each}. Change sae.n_latents or budget.flops, or the settings that exclude sizes.")
    return said


def _valleys(counts: list[int]) -> int:
    return sum(n >= SIZES for n in counts)
