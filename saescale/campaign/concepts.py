"""Concept scoring as jobs: which dictionaries and controls, dealt over the workers, and their scores brought together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saescale import identity
from saescale.campaign import inventories, local
from saescale.campaign.launch import make_job
from saescale.campaign.plan import Plan, PlannedRun
from saescale.campaign.status import state
from saescale.records import concepts
from saescale.records.store import Store
from saescale.sources import is_synthetic

EXAMPLE = "`concepts: {grid: NAME, inventories: [words]}`"
MIN_TOKENS = 2  # a single token is already a direction of the residual stream: even an untrained dictionary finds it
FEW_CONCEPTS = 20


def score(plan: Plan, store: Store, progress: local.Progress) -> Path:
    """Score the dictionaries of the sweep's concept grid, and write concepts.parquet and concepts.json in runs/<sweep>/."""
    wanted = plan.sweep.concepts
    if not wanted:
        raise ValueError(f"sweep {plan.sweep.name!r} names no concepts: add {EXAMPLE} to its file.")
    runs = [r for r in plan.runs if wanted["grid"] in r.grids]
    synthetic = is_synthetic(runs[0].science)
    if synthetic and not {"inventories", "min_tokens"}.isdisjoint(wanted):
        raise ValueError(f"sweep {plan.sweep.name!r} trains on synthetic activations, whose concepts are their features: leave "
                         "`inventories` and `min_tokens` out of its `concepts`.")
    refuse_mixed(runs)
    asked = [] if synthetic else inventories.chosen([str(i) for i in wanted.get("inventories", ["words"])])
    missing = [r.run_id for r in runs if state(r, store).state != "done"]
    if missing:
        raise ValueError(f"{len(missing)} dictionaries of grid {wanted['grid']!r} are not trained yet, the first {missing[0]}. "
                         "Run `saescale launch` on the sweep first.")
    content = {"inventories": asked, "scoring_tokens": wanted.get("scoring_tokens"),
               "min_tokens": wanted.get("min_tokens", MIN_TOKENS)}
    content |= {"frequencies": wanted["frequencies"]} if "frequencies" in wanted else {}
    jobs = _jobs(runs, store, plan, content)
    run = local.run_in_process if plan.cluster.kind == "inprocess" else local.run_pool
    problems = run([j for j in jobs if not (j / concepts.ABOUT).exists()], plan.cluster.workers, "concepts", progress)
    if problems:
        raise local.Stopped(" ".join(problems))
    folder = store.sweep_dir(plan.sweep.folder_name)
    if synthetic:
        _together([j / concepts.COSINE for j in jobs], folder / concepts.COSINE)
    return _together(jobs, folder)


def refuse_mixed(runs: Sequence[PlannedRun]) -> None:
    """Raises ValueError unless all runs read one corpus, through one language model, at one hook."""
    if is_synthetic(runs[0].science):
        if len({identity.digest(r.science["activations"]) for r in runs}) > 1:
            raise ValueError("the dictionaries to score were trained on different synthetic features, which are no one corpus. "
                             "Score one at a time, with the setting of `activations` they differ in as an override.")
        return
    for part, keys in (("lm", ("revision", "hook_name")),
                       ("data", ("corpus_sha256", "tokenizer_sha256", "n_ctx", "max_train_tokens", "held_out_fraction",
                                "oversample", "oversample_factor"))):
        for key in keys:
            values = list(dict.fromkeys(str(r.science[part].get(key)) for r in runs))
            if len(values) > 1:
                raise ValueError(f"the dictionaries to score differ in {part}.{key} ({', '.join(values[:3])}): a "
                                 "concept's frequency and its occurrences would not be the same for them. Score one at a time, "
                                 f"with {part}.{key.removesuffix('_sha256')} as an override.")


def _jobs(runs: Sequence[PlannedRun], store: Store, plan: Plan, content: dict[str, Any]) -> list[Path]:
    """One job per worker; the same dictionaries give the same jobs, so what was scored is not scored again."""
    largest_first = sorted(runs, key=lambda r: -r.science["sae"]["n_latents"])
    wanted = [{"run_id": r.run_id, "dictionary": kind} for kind in ("trained", "untrained") for r in largest_first]
    if not is_synthetic(runs[0].science):  # random directions single out no coordinates
        wanted.append({"run_id": largest_first[-1].run_id, "dictionary": "neurons"})
    sizes = sorted({r.science["sae"]["n_latents"] for r in runs})
    workers = min(plan.cluster.workers, len(wanted))
    return [make_job(store, {"stage": "concepts", "schema": concepts.SCHEMA, "dictionaries": wanted[i::workers], "sizes": sizes,
                             "execution": dict(runs[0].execution), **content}) for i in range(workers)]


def _together(jobs: Sequence[Path], folder: Path) -> Path:
    import pandas as pd

    parts = [concepts.read(j) for j in jobs]
    place = {kind: i for i, kind in enumerate(concepts.DICTIONARIES)}
    described = sorted((d for p in parts for d in p.about["dictionaries"]),
                       key=lambda d: (place[d["dictionary"]], d["n_latents"], d["seed"], d["run_id"]))
    about = {**parts[0].about, "dictionaries": described}
    table = pd.concat([p.table for p in parts], ignore_index=True)
    order = table["dictionary"].map(place).to_numpy()
    table = table.assign(order=order).sort_values(["order", "n_latents", "seed", "run_id"], kind="stable", ignore_index=True)
    about["warnings"] = warnings(about)
    return concepts.write(folder, about, table)


def warnings(about: dict[str, Any]) -> list[str]:
    """What a reader of the scores must know, one sentence each."""
    said = []
    sizes = {d["n_latents"] for d in about["dictionaries"] if d["dictionary"] == "trained"}
    if len(sizes) == 1:
        said.append(f"all dictionaries have {sizes.pop()} latents: with one size nothing can be said of how presence moves "
                    "with it. Give the grid several sae.n_latents.")
    by_reason: dict[tuple[str, str], list[str]] = {}
    for row in about["left_out"]:
        by_reason.setdefault((row["category"], row["reason"]), []).append(row["concept"])
    for (category, reason), names in by_reason.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        which = f"{len(names)} of {about['categories'][category]['n_names']} {category}"
        said.append(f"{which} left out ({', '.join(names[:3])}{more}): each {reason}.")
    for category, facts in about["categories"].items():
        if few := facts["n_asked"] - facts["n_scored"]:
            said.append(f"{few} of {facts['n_names']} {category} have no score: less than {about['definition']['min_per_half']} "
                        "occurrences in a half of the documents.")
    n_scored = sum(facts["n_scored"] for facts in about["categories"].values())
    if n_scored < FEW_CONCEPTS:
        said.append(f"only {n_scored} concepts could be scored: too few for a law. Score more tokens, or add inventories.")
    return said
