"""Looks across the dictionaries of one sweep: what steering does as they grow, how latents split, how well they tell concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saescale.campaign import inventories, ladder
from saescale.campaign.concepts import MIN_TOKENS, refuse_mixed
from saescale.campaign.local import Progress
from saescale.campaign.plan import Plan, PlannedRun
from saescale.looking import plain, subject
from saescale.measure import splitting
from saescale.measure.steering import ARMS, N_PREFIXES, PREFIX_TOKENS, SCALES, Steering, maxima
from saescale.measure.subject import use_threads
from saescale.records import concepts as concept_record
from saescale.records import latents as records
from saescale.records.store import Store, write_json

SHOWN_TOKENS = 32_768
CONTROL_SEED = 1_000_003  # of the untrained dictionary that splitting is compared with; no run has it as its own


def open_rungs(plan: Mapping[str, Any], store: Store) -> list[PlannedRun]:
    runs = ladder.rungs(plan, store)
    for run in runs:
        ladder.require_readable(run, store)
    use_threads(dict(runs[0].execution))
    return runs


def split(folder: Path, plan: Mapping[str, Any], store: Store, n_tokens: int | None, progress: Progress) -> dict[str, Any]:
    """Compare every two sizes of a sweep; writes and gives splitting.json.

    Beside each pair of trained dictionaries stands the control: the larger one untrained, from a seed of its own, since
    dictionaries of one seed begin with the same directions.
    """
    runs = open_rungs(plan, store)
    subjects = {str(r.science["sae"]["n_latents"]): subject(store, r, n_tokens=n_tokens) for r in runs}
    saes = {name: s.sae for name, s in subjects.items()}
    names = list(saes)
    saes |= {f"untrained {name}": subjects[name].untrained(CONTROL_SEED) for name in names[1:]}
    trained = [(small, large) for i, large in enumerate(names) for small in names[:i]]
    pairs = [*trained, *((small, f"untrained {large}") for small, large in trained)]
    first, note = subjects[names[0]], f"{len(saes)} dictionaries"
    n, total = first.n_batches, first.n_batches + len(pairs)
    blocks = first.blocks(lambda i: progress.stage("splitting", i, total, note))
    stitched, fired = splitting.stitch(saes, pairs, blocks)
    rows = []
    for i, (small, large) in enumerate(pairs):
        progress.stage("splitting", n + i, total, f"{small} beside {large}")
        directions = splitting.compare(saes[small].W_dec, saes[large].W_dec, (fired[small] > 0, fired[large] > 0))
        row = splitting.summary(directions, stitched[small, large], len(first.text))
        rows.append({"small": int(small), "large": int(large.split()[-1]), "trained": (small, large) in trained, **row})
    progress.stage("splitting", total, total, note)
    found = {"schema": 1, "sweep": folder.name, "kind": runs[0].science["sae"]["kind"], "text": first.said,
             "dictionaries": [{"run_id": r.run_id, "n_latents": r.science["sae"]["n_latents"],
                               "seed": r.science["train"]["seed"]} for r in runs], "pairs": rows}
    write_json(folder / records.SPLITTING, found)
    return found


def show_splitting(plan: Plan, store: Store, progress: Progress) -> None:
    """The comparison a scored sweep's report shows, on few tokens; nothing where its concept grid has one size."""
    grid = plan.sweep.concepts.get("grid")
    if len({r.science["sae"]["n_latents"] for r in plan.runs if grid in r.grids}) > 1:
        split(store.sweep_dir(plan.sweep.folder_name), plan.to_json(), store, SHOWN_TOKENS, progress)


def probe(folder: Path, plan: Mapping[str, Any], store: Store, options: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """k-sparse probes on every size of a sweep and their controls; writes and gives probing.json.

    `options`: inventories (None: the sweep's, or words), n_tokens, n_concepts, ks.
    """
    from saescale.measure import probing

    ks = sorted(set(options["ks"]))
    if not ks or ks[0] < 1 or options["n_concepts"] < 1:
        raise ValueError(f"--k {options['ks']} --concepts {options['n_concepts']}: give numbers of latents and concepts from 1.")
    runs = open_rungs(plan, store)
    refuse_mixed(runs)
    said = plan.get("concepts") or {}
    content = {"inventories": inventories.chosen(options["inventories"] or said.get("inventories", ["words"])),
               "scoring_tokens": options["n_tokens"], "min_tokens": said.get("min_tokens", MIN_TOKENS), "ks": ks,
               "n_concepts": options["n_concepts"], "execution": dict(runs[0].execution)}
    found = probing.probe_dictionaries(store, [(r.run_id, dict(r.science)) for r in runs], content, folder,
                                       lambda done, total, note: progress.stage("probing", done, total, note))
    made = {"schema": 1, "sweep": folder.name, **found, "summary": probing.summary(found["rows"])}
    write_json(folder / records.PROBING, made)
    return made


def steer_concepts(folder: Path, plan: Mapping[str, Any], store: Store, options: Mapping[str, Any],
                   progress: Progress) -> dict[str, Any]:
    """Steer every size of a sweep by the latents of the same concepts, arm by arm; writes and gives steering.json.

    `options`: n_concepts, scales. Arms: trained (the concept's latent), other (another concept's latent of the same dictionary),
    random (a random direction, as long, added in the same amounts), untrained (the concept's latent of the untrained dictionary).
    """
    runs = open_rungs(plan, store)
    chosen = choose_concepts(folder, [r.run_id for r in runs], options["n_concepts"])
    opened = [subject(store, r) for r in runs]
    scales = list(options["scales"] or SCALES)
    steering = Steering(opened[0], scales)
    total, done, rows = len(runs) * len(chosen) * len(ARMS), 0, []
    for run, one in zip(runs, opened, strict=True):
        note = f"n_latents={run.science['sae']['n_latents']}"
        progress.stage("steer", done, total, note)
        latents = {kind: [c[run.run_id, kind] for c in chosen] for kind in ("trained", "untrained")}
        saes = {"trained": one.sae, "untrained": one.untrained()}
        highest = {kind: maxima(saes[kind], opened[0], latents[kind]) for kind in saes}
        for i, c in enumerate(chosen):
            for arm in ARMS:
                kind = "untrained" if arm == "untrained" else "trained"
                latent = latents[kind][(i + 1) % len(chosen) if arm == "other" else i]
                found = steering.of(saes[kind], latent, highest[kind][latent], c["concept"], i if arm == "random" else None)
                rows.append({"run_id": run.run_id, "n_latents": run.science["sae"]["n_latents"], "arm": arm, "latent": latent,
                             "category": c["category"], "concept": c["concept"], "max": round(highest[kind][latent], 5), **found})
                done += 1
                progress.stage("steer", done, total, note)
    made = {"schema": 1, "sweep": folder.name, "text": opened[0].said, "scales": scales, "n_prefixes": N_PREFIXES,
            "prefix_tokens": PREFIX_TOKENS, "concepts": [{k: c[k] for k in ("category", "concept", "frequency")} for c in chosen],
            "rows": rows}
    write_json(folder / records.STEERING, made)
    return made


def choose_concepts(folder: Path, run_ids: Sequence[str], n: int) -> list[dict[str, Any]]:
    """n concepts evenly spaced in frequency, of those that every dictionary, trained and untrained, has some latent for.

    Not chosen by score: what is compared must not decide what is compared. Each is a row with, under (run_id, trained or
    untrained), its latent there.
    """
    if n < 2:
        raise ValueError(f"--concepts {n} is out of range: give 2 or more, since one concept's latent is another's control.")
    found = concept_record.read(folder)
    if found is None:
        raise ValueError(f"sweep {folder.name} has no concept scores. Run `saescale concepts` on it first.")
    table = found.table[found.table["run_id"].isin(run_ids) & found.table["dictionary"].isin(("trained", "untrained"))]
    latents = {(*key, row.run_id, row.dictionary): int(row.latent) for row in table.itertuples()
               for key in [(row.category, row.concept)] if row.latent >= 0}
    wanted = [(run, kind) for run in run_ids for kind in ("trained", "untrained")]
    everywhere = [plain(c) for c in found.concepts.to_dict("records")
                  if all((c["category"], c["concept"], *w) in latents for w in wanted)]
    if len(everywhere) < 2:
        raise ValueError(f"{len(everywhere)} concepts of sweep {folder.name} have a latent in all of its {len(run_ids)} sizes, "
                         "trained and untrained: two or more are needed. Score more concepts with `saescale concepts`.")
    n = min(n, len(everywhere))
    chosen = [everywhere[round(i * (len(everywhere) - 1) / max(n - 1, 1))] for i in range(n)]
    return [c | {w: latents[c["category"], c["concept"], *w] for w in wanted} for c in chosen]
