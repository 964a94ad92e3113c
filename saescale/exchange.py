"""SAEs to and from other tools: others' dictionaries measured as one of our runs was, and runs made ready for the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from saescale.campaign import ladder
from saescale.campaign.local import Progress
from saescale.campaign.recorded import find
from saescale.measure.evaluate import HeldOut, evaluate
from saescale.measure.subject import Subject, use_threads
from saescale.records.store import Store, read_json, write_json
from saescale.sae import export, foreign

OTHERS = "others"


def evaluate_like(store: Store, path: Path, like: str, sweep: str | None, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """(file, content): the SAE in `path`, measured on the held-out set, the hook and the model of run `like`.

    Kept as runs/<sweep>/others/<name>.json, whence figures place it beside the sweep's own runs. Its objective is missing: what
    it was trained for is not known. Errors: `ValueError` for an SAE of another width or hook.
    """
    run = find(store, like)
    ladder.require_readable(run, store)
    folder = store.sweep_dir(ladder.sweep_of(store, run.run_id, sweep)[0])
    science = dict(run.science)
    sae, origin = foreign.load(path), foreign.origin(path)
    _check_alike(path, sae.d_in, science)
    use_threads(run.execution)
    progress.stage("evaluate", 0, 1, str(path))
    subject = Subject(store, run.run_id, science, dict(run.execution))
    scale = subject.inputs.scale
    held_out = HeldOut(subject.tokens, subject.source, subject.lm, scale, science["eval"])
    numbers, firing = evaluate(export.unscaled(sae, 1 / scale), held_out)
    if origin != "saescale":
        numbers |= {"objective": None, "objective_se": None}
    weights = next(path / name for name in (export.WEIGHTS_FILE, foreign.SPARSIFY_WEIGHTS) if (path / name).is_file())
    content = {"name": path.resolve().name, "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "format": origin,
               "kind": sae.kind.name, "n_latents": sae.n_latents, "d_in": sae.d_in, "like": run.run_id,
               "n_alive": int((firing.first >= 0).sum()), "alive_window_tokens": len(held_out.x), "metrics": numbers}
    kept = folder / OTHERS / f"{content['name']}-{content['weights_sha256'][:8]}.json"
    write_json(kept, content)
    progress.stage("evaluate", 1, 1, str(path))
    return kept, content


def _check_alike(path: Path, d_in: int, science: dict[str, Any]) -> None:
    if d_in != science["lm"]["d_in"]:
        raise ValueError(f"{path} reads activations of width {d_in}, the run's hook {science['lm']['hook_name']} gives "
                         f"{science['lm']['d_in']}. Give --like a run on the hook it was trained on.")
    said = (read_json(path / export.CFG_FILE).get("metadata") or {}).get("hook_name")
    if said not in (None, science["lm"]["hook_name"]):
        hook = science["lm"]["hook_name"]
        raise ValueError(f"{path} was trained on {said}, the run on {hook}. Give --like a run on {said}.")
