"""k-sparse probing: how well a concept is told from other tokens by k latents of a dictionary (Gurnee et al. 2023, SAEBench).

A task is a name of the text: its occurrences against as many other tokens, half of them tokens that spell the end of the name and
end no name (where there are such), half drawn at random. On one half of the documents the k latents of largest |difference of
means| are chosen and a logistic regression is fitted to them; the accuracy is that on the other half. Guessing gives 0.5.

Controls: the same with the untrained dictionary, with k single coordinates (`neurons`), and one regression on all raw activations
(`activations`, no k). Every regression reads inputs at variance 1 on the fitting half; its L2 penalty is scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from saescale.activations.inputs import Inputs
from saescale.measure.asked import Asked, ask, frequency_range
from saescale.measure.firings import CHUNK, Codes, active
from saescale.measure.places import Places, choose_places, document_halves
from saescale.measure.score import dictionary, gathered, speller, texts
from saescale.records.store import Store

MIN_PER_HALF = 40  # occurrences of a name: an accuracy's standard error within 0.06
MAX_ITERATIONS = 500

Progress = Callable[[float, float, str], None]


class Task(NamedTuple):
    """One name. `rows` int64 [row]: places; `positive` bool [row]: it ends there; `fitting` bool [row]: of the half to fit on."""

    concept: dict[str, Any]
    rows: np.ndarray
    positive: np.ndarray
    fitting: np.ndarray


def probe_dictionaries(store: Store, runs: Sequence[tuple[str, dict[str, Any]]], content: dict[str, Any], folder: Path,
                       progress: Progress) -> dict[str, Any]:
    """What `saescale probing` writes, without the sweep's name: `rows` with the accuracy of every (dictionary, k, concept).

    `runs`: (run_id, science) of the dictionaries, which read one corpus at one hook. `content`: inventories, scoring_tokens,
    min_tokens, n_concepts, ks, execution. `folder` takes a file of activations while this runs.
    """
    inputs = Inputs(store, runs[0][1], content["execution"])
    train, scored, documents, n_batches = texts(inputs, content)
    choosing = document_halves(documents)
    sizes = [science["sae"]["n_latents"] for _, science in runs]
    asked = ask(content["inventories"], train, scored, choosing, frequency_range(sizes), content["min_tokens"], speller(inputs))
    places = choose_places(asked.found, scored.tokens, choosing)
    wanted = tasks(asked, places, content["n_concepts"])
    looked_at = np.unique(np.concatenate([t.rows for t in wanted]))
    total, rows = 2 * len(runs) + 2, []
    with gathered(inputs, places, n_batches, folder, lambda share: progress(share, total, "activations")) as raw:
        def inputs_at(scale: float) -> Callable[[np.ndarray], Tensor]:
            return lambda places: raw[torch.from_numpy(places)].float().mul_(scale)

        x = inputs_at(1.0)(looked_at).numpy()
        at = {"n_latents": x.shape[1], "run_id": runs[0][1]["lm"]["hook_name"], "seed": None}
        for task in wanted:
            mine = np.searchsorted(looked_at, task.rows)
            rows.append(row(at | {"dictionary": "activations", "k": None}, task, accuracy(x[mine], task)))
            rows += [row(at | {"dictionary": "neurons", "k": k}, task, a)
                     for k, a in sparse_accuracies(csr_matrix(x[mine]), task, content["ks"]).items()]
        for i, (kind, (run_id, science)) in enumerate((kind, run) for kind in ("trained", "untrained") for run in runs):
            progress(2 + i, total, f"{kind} n_latents={science['sae']['n_latents']}")
            sae, scale = dictionary(inputs, science, store.run_dir(run_id), kind == "trained")
            codes = encoded(sae.encode_pairs, inputs_at(scale), looked_at, sae.n_latents)
            about = {"dictionary": kind, "run_id": run_id, "n_latents": sae.n_latents, "seed": science["train"]["seed"]}
            for task in wanted:
                found = sparse_accuracies(codes[np.searchsorted(looked_at, task.rows)], task, content["ks"])
                rows += [row(about | {"k": k}, task, a) for k, a in found.items()]
    progress(total, total, "")
    return {"ks": list(content["ks"]), "n_tasks": len(wanted), "n_scored_tokens": len(scored.tokens),
            "inventories": [i["name"] for i in content["inventories"]], "rows": rows}


def row(about: dict[str, Any], task: Task, found: float) -> dict[str, Any]:
    n = int(task.fitting.sum())
    return {**about, **task.concept, "n_fitted": n, "n_tested": len(task.rows) - n, "accuracy": round(found, 5)}


def tasks(asked: Asked, places: Places, n: int, seed: int = 0) -> list[Task]:
    """At most n names with MIN_PER_HALF occurrences in each half, evenly spaced in frequency: not chosen by any score.

    Raises ValueError when there is none.
    """
    enough = places.occurrences.min(axis=0)[asked.table["name"]] >= MIN_PER_HALF
    fit = asked.table[enough].drop_duplicates("name").to_dict("records")
    if not fit:
        raise ValueError(f"no name occurs {MIN_PER_HALF} times in each half of the documents: probe on more tokens (--tokens), "
                         "or choose an inventory of commoner names (--inventory).")
    spaced = [fit[i] for i in np.unique(np.linspace(0, len(fit) - 1, min(n, len(fit))).round().astype(int))]
    return [_task(concept, places, np.random.default_rng([seed, concept["name"]])) for concept in spaced]


def _task(concept: dict[str, Any], places: Places, rng: np.random.Generator) -> Task:
    """Negatives as many as the occurrences, in each half."""
    rows, positive = [], []
    for side in (places.choosing, ~places.choosing):
        own = np.flatnonzero(side & (places.name == concept["name"]))
        ending = places.ending_of[concept["name"]]
        hard = np.flatnonzero(side & (places.ending == ending) & (places.name < 0))
        hard = rng.permutation(hard)[:len(own) // 2]
        free = np.setdiff1d(np.flatnonzero(side & places.at_random), hard)
        other = rng.permutation(free)[:len(own) - len(hard)]
        rows += [own, hard, other]
        positive += [np.ones(len(own), bool), np.zeros(len(hard) + len(other), bool)]
    rows = np.concatenate(rows)
    facts = {key: concept[key] for key in ("category", "concept", "frequency")}
    return Task(facts, rows, np.concatenate(positive), places.choosing[rows])


def encoded(encode: Callable[[Tensor], Codes], rows: Callable[[np.ndarray], Tensor], places: np.ndarray, n: int) -> csr_matrix:
    """float32 [place, n latents]: the activations at these places, sparse."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(places), CHUNK):
            part = places[start:start + CHUNK]
            at, latent, value = active(encode(rows(part)))
            parts.append(csr_matrix((value, (at, latent)), shape=(len(part), n)))
    return vstack(parts, format="csr")


def sparse_accuracies(codes: csr_matrix, task: Task, ks: Sequence[int]) -> dict[int, float]:
    """k -> accuracy on the other half, of the k latents whose means differ most on the fitting half. codes: [row, latent]."""
    fitting = codes[task.fitting]
    positive = task.positive[task.fitting]
    difference = np.asarray(fitting[positive].mean(axis=0) - fitting[~positive].mean(axis=0)).ravel()
    order = np.argsort(-np.abs(difference), kind="stable")
    return {k: accuracy(np.asarray(codes[:, order[:k]].todense()), task) for k in ks}


def accuracy(x: np.ndarray, task: Task) -> float:
    """On the half that is not fitted, of a logistic regression on x [row, input]. Raises ValueError without scikit-learn."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError:
        raise ValueError("probing needs scikit-learn: pip install 'saescale[probe]'.") from None
    fitting = x[task.fitting].astype(np.float64)
    scale = fitting.std(axis=0)
    scale[scale == 0] = 1.0
    mean = fitting.mean(axis=0)
    model = LogisticRegression(max_iter=MAX_ITERATIONS).fit((fitting - mean) / scale, task.positive[task.fitting])
    return float(model.score((x[~task.fitting] - mean) / scale, task.positive[~task.fitting]))


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean accuracy over concepts and its standard error, per (dictionary, size, k), in order of the rows."""
    groups: dict[tuple, list[float]] = {}
    for r in rows:
        groups.setdefault((r["dictionary"], r["n_latents"], r["k"]), []).append(r["accuracy"])
    return [{"dictionary": kind, "n_latents": n, "k": k, "accuracy": float(np.mean(found)), "n_concepts": len(found),
             "accuracy_se": float(np.std(found, ddof=1) / len(found) ** 0.5) if len(found) > 1 else None}
            for (kind, n, k), found in groups.items()]
