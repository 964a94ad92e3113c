"""Concept scores of a sweep's dictionaries, each trained one beside the same one untrained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from saescale.activations.inputs import Inputs
from saescale.measure import concepts, words
from saescale.records.store import Store, read_json
from saescale.sae import export
from saescale.sae.model import SAE, init
from saescale.sae.spec import SAESpec


def score_dictionaries(store: Store, content: dict[str, Any], progress: Callable[[float, float, str], None]) -> dict[str, Any]:
    """Score `content["dictionaries"]` ([{"run_id", "trained"}]) on the first `scoring_tokens` training activations.

    Concepts and their frequencies come from everything the dictionaries were trained on; `content["sizes"]` are all the
    sweep's dictionary sizes, so that every job picks the same concepts.
    """
    configs = [read_json(store.run_dir(d["run_id"]) / "config.json") for d in content["dictionaries"]]
    inputs = Inputs(store, configs[0]["science"], content["execution"])
    found, concept_of, half, n_batches = find_concepts(inputs, content)
    described, results = [], []
    for i, (wanted, config) in enumerate(zip(content["dictionaries"], configs, strict=True)):
        science = config["science"]
        sae, scale = dictionary(inputs, science, store.run_dir(wanted["run_id"]), wanted["trained"])
        note = f"{'trained' if wanted['trained'] else 'untrained'} n_latents={sae.n_latents}"
        blocks = (inputs.train_source.batch(b).mul_(scale) for b in
                  _counted(n_batches, lambda b, i=i, note=note: progress(i + b / n_batches, len(configs), note)))
        result = concepts.score_dictionary(sae.encode_pairs, blocks, half, concept_of, sae.n_latents)
        results.append(result)
        described.append({"run_id": wanted["run_id"], "n_latents": sae.n_latents, "n_alive": result["n_alive"],
                          "seed": science["train"]["seed"], "trained": wanted["trained"]})
    return concepts.concepts_record(configs[0]["science"]["data"]["corpus"], found, described, results)


def _counted(n: int, seen: Callable[[int], None]) -> Iterator[int]:
    for i in range(n):
        seen(i)
        yield i


def dictionary(inputs: Inputs, science: dict[str, Any], run_dir: Any, trained: bool) -> tuple[SAE, float]:
    """The trained SAE with raw activations, or the one it started from with scaled ones: (sae, scale of its inputs)."""
    if trained:
        return export.load(run_dir), 1.0
    return init(SAESpec.of(science), science["train"]["seed"], inputs.sample), inputs.scale


def find_concepts(inputs: Inputs, content: dict[str, Any]) -> tuple[list[dict], np.ndarray, np.ndarray, int]:
    """(concepts, concept at each scoring token, half of each scoring token, forward batches to score on)."""
    from transformers import PreTrainedTokenizerFast

    split = inputs.corpus.train
    n_batches = split.batches_for(content["scoring_tokens"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{inputs.execution['lm_path']}/tokenizer.json")
    vocabulary = words.read_vocabulary(words.decoded_pieces(tokenizer), tokenizer.all_special_ids)
    everything, scored = split.flat(), split.flat(n_batches)
    train = words.find_words(everything.ids, everything.sequences, vocabulary)
    scoring = words.find_words(scored.ids, scored.sequences, vocabulary)
    half = concepts.document_halves(scored.documents)
    found, concept_of = concepts.select_concepts(train, scoring, half, concepts.frequency_range(content["sizes"]))
    return found, concept_of, half, n_batches
