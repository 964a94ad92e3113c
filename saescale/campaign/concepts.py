"""Concept scoring as jobs: which dictionaries, dealt over the workers, and their scores brought together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saescale.campaign import local
from saescale.campaign.launch import make_job
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.status import state
from saescale.records.store import Store, read_json, write_json
from saescale.sources import is_synthetic

CONCEPTS = "concepts.json"


def score(plan: Plan, store: Store, progress: local.Progress) -> Path:
    """Score the dictionaries of the sweep's concept grid and write runs/<sweep>/concepts.json."""
    wanted = plan.sweep.concepts
    if not wanted:
        raise ValueError(f"sweep {plan.sweep.name!r} names no concepts: add `concepts: {{grid: NAME, scoring_tokens: N}}` "
                         "to its file.")
    runs = [r for r in plan.runs if wanted["grid"] in r.grids]
    if is_synthetic(runs[0].science):
        raise ValueError(f"sweep {plan.sweep.name!r} trains on synthetic activations, which have no words to score: "
                         "read n_features_present in its table instead.")
    missing = [r.run_id for r in runs if state(r, store).state != "done"]
    if missing:
        raise ValueError(f"{len(missing)} dictionaries of grid {wanted['grid']!r} are not trained yet, the first {missing[0]}. "
                         "Run `saescale launch` on the sweep first.")
    path = store.sweep_dir(plan.sweep.folder_name) / CONCEPTS
    jobs = _jobs(runs, store, plan, int(wanted["scoring_tokens"]))
    run = local.run_in_process if plan.cluster.kind == "inprocess" else local.run_pool
    problems = run([j for j in jobs if not (j / CONCEPTS).exists()], plan.cluster.workers, "concepts", progress)
    if problems:
        raise local.Stopped(" ".join(problems))
    write_json(path, _together([read_json(j / CONCEPTS) for j in jobs]))
    return path


def _jobs(runs: list[PlannedRun], store: Store, plan: Plan, scoring_tokens: int) -> list[Path]:
    """One job per worker; the same dictionaries give the same jobs, so what was scored is not scored again."""
    wanted = [{"run_id": r.run_id, "trained": trained} for trained in (True, False)
              for r in sorted(runs, key=lambda r: -r.science["sae"]["n_latents"])]
    sizes = sorted({r.science["sae"]["n_latents"] for r in runs})
    workers = min(plan.cluster.workers, len(wanted))
    return [make_job(store, {"stage": "concepts", "dictionaries": wanted[i::workers], "sizes": sizes,
                             "scoring_tokens": scoring_tokens, "execution": dict(runs[0].execution)}) for i in range(workers)]


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    rows = sorted(((d, s) for p in parts for d, s in zip(p["dictionaries"], p["scores"], strict=True)),
                  key=lambda row: (not row[0]["trained"], row[0]["n_latents"], row[0]["seed"]))
    return {**parts[0], "dictionaries": [d for d, _ in rows], "scores": [s for _, s in rows]}
