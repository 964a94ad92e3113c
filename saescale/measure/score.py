"""Concept scores of a sweep's dictionaries, each trained one beside its controls. Read `score_dictionaries` downwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saescale.activations.folder import LMFolder
from saescale.activations.inputs import Inputs
from saescale.activations.words import vocabulary_of
from saescale.measure.asked import Asked, Text, ask, frequencies
from saescale.measure.concepts import MIN_PER_HALF, THETAS, Dictionary, Labels, coordinates, label
from saescale.measure.firings import HARD_SHARE, NEGATIVES, active
from saescale.measure.places import AT_RANDOM, PER_ENDING, PER_NAME, Places, choose_places, document_halves, permuted
from saescale.records.store import Store, read_json
from saescale.sae import export
from saescale.sae.model import SAE, init
from saescale.sae.spec import SAESpec

SCORED_TOKENS = 20_000_000  # of the training text at most, where the sweep does not say
TAUS = (0.5, 0.3, 0.7)  # scores from which a concept is present; the first is the headline's
TOP = 5  # latents of a prompt that are asked, as in Templeton et al. 2024
PROMPTS_AT_ONCE = 64
GATHERING = 0.2  # share of a job's progress that reading activations takes

Progress = Callable[[float, float, str], None]


def score_dictionaries(store: Store, content: dict[str, Any], folder: Path,
                       progress: Progress) -> tuple[dict[str, Any], pd.DataFrame]:
    """(description, table) of `content["dictionaries"]` [{"run_id", "dictionary"}] by saescale.records.concepts.

    Names and frequencies come from all the dictionaries were trained on, occurrences from the first `scoring_tokens` of it;
    `content["sizes"]` are all the sweep's dictionary sizes, so that every job asks about the same words. `folder` takes a file of
    activations while this runs.
    """
    configs = [read_json(store.run_dir(d["run_id"]) / "config.json") for d in content["dictionaries"]]
    inputs = Inputs(store, configs[0]["science"], content["execution"])
    train, scored, documents, n_batches = texts(inputs, content)
    choosing = document_halves(documents)
    asked = ask(content["inventories"], train, scored, choosing, frequencies(content), content["min_tokens"],
                speller(inputs))
    places = choose_places(asked.found, scored.tokens, choosing)
    n = len(configs)
    with gathered(inputs, places, n_batches, folder, lambda share: progress(share * GATHERING * n, n, "activations")) as raw:
        prompts = prompt_activations(inputs, asked)
        described, tables = [], []
        for i, (wanted, config) in enumerate(zip(content["dictionaries"], configs, strict=True)):
            view = _View.of(inputs, config["science"], store, wanted, raw, places)

            def show(share: float, i: int = i, note: str = view.note) -> None:
                progress(n * GATHERING + (i + share) * (1 - GATHERING), n, note)

            found = label(view.asked(prompts), view.rows(raw), [places, permuted(places)], asked.concepts, show)
            kinds = (wanted["dictionary"], "permuted") if wanted["dictionary"] == "trained" else (wanted["dictionary"],)
            for kind, labels in zip(kinds, found, strict=False):
                about = {"run_id": view.name, "dictionary": kind, "n_latents": view.dictionary.n_latents,
                         "n_alive": labels.n_alive, "seed": config["science"]["train"]["seed"]}
                described.append(about)
                tables.append(_rows(asked, about, labels))
    about = describe(inputs, content, train, scored, asked, places)
    return about | {"dictionaries": described}, pd.concat(tables, ignore_index=True)


def texts(inputs: Inputs, content: dict[str, Any]) -> tuple[Text, Text, np.ndarray, int]:
    """(the text of the dictionaries, the scored beginning of it, the document of each scored token, its forward batches)."""
    split = inputs.corpus.train
    n_batches = split.batches_for(content["scoring_tokens"] or SCORED_TOKENS)
    vocabulary = vocabulary_of(Path(inputs.execution["lm_path"]))
    everything = split.flat()
    train = Text.of(everything.ids, everything.sequences, vocabulary, inputs.repeats)
    if n_batches == split.n_batches:
        return train, train, everything.documents, n_batches
    part = split.flat(n_batches)
    return train, Text.of(part.ids, part.sequences, vocabulary), part.documents, n_batches


def speller(inputs: Inputs) -> Callable[[str], list[int] | None]:
    """Token ids of a text, None when the tokenizer has nothing for it but its unknown token."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{inputs.execution['lm_path']}/tokenizer.json")
    unknown = getattr(tokenizer.model, "unk_token", None)

    def spell(text: str) -> list[int] | None:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids if set(encoding.tokens) - {unknown} else None

    return spell


@contextmanager
def gathered(inputs: Inputs, places: Places, n_batches: int, folder: Path, progress: Callable[[float], None]) -> Iterator[Tensor]:
    """The activations [place, d_in] at the places, unscaled, in the activation dtype: a file in `folder`, removed at the end."""
    source, counts = inputs.train_source, inputs.train_source.counts[:n_batches]
    dtype, d_in = getattr(torch, inputs.science["data"]["activation_dtype"]), inputs.science["lm"]["d_in"]
    path = folder / "places.bin"
    try:
        raw = torch.from_file(str(path), shared=True, size=len(places.token) * d_in, dtype=dtype).view(-1, d_in)
        ends = np.cumsum(counts)
        bounds = np.searchsorted(places.token, np.append(0, ends))
        for batch in range(n_batches):
            mine = slice(bounds[batch], bounds[batch + 1])
            if mine.stop > mine.start:
                rows = torch.from_numpy(places.token[mine] - (ends[batch] - counts[batch]))
                raw[mine] = source.batch(batch)[rows].to(dtype)
            progress((batch + 1) / n_batches)
        yield raw
    finally:
        path.unlink(missing_ok=True)


def prompt_activations(inputs: Inputs, asked: Asked) -> Tensor:
    """float32 [concept, d_in], unscaled: at the last token of each concept's prompt, opened by BOS where the model has one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{inputs.execution['lm_path']}/tokenizer.json")
    bos = LMFolder(Path(inputs.execution["lm_path"])).bos_token_id
    head = [] if bos is None else [bos]
    dtype = getattr(torch, inputs.science["data"]["activation_dtype"])
    ids = [head + e.ids for e in tokenizer.encode_batch(list(asked.table["prompt"]), add_special_tokens=False)]
    out = []
    for start in range(0, len(ids), PROMPTS_AT_ONCE):
        part = ids[start:start + PROMPTS_AT_ONCE]
        padded = torch.zeros(len(part), max(map(len, part)), dtype=torch.int64)  # what follows the last token changes nothing
        for row, sequence in enumerate(part):
            padded[row, :len(sequence)] = torch.tensor(sequence)
        last = torch.tensor([len(sequence) - 1 for sequence in part])
        out.append(inputs.lm.activations(padded)[torch.arange(len(part)), last].to(dtype).float())
    return torch.cat(out)


@dataclass(frozen=True)
class _View:
    """One dictionary or control, and the scale of the inputs it reads."""

    name: str
    note: str
    dictionary: Dictionary
    scale: float
    asks_prompts: bool

    @classmethod
    def of(cls, inputs: Inputs, science: dict[str, Any], store: Store, wanted: dict[str, Any], raw: Tensor,
           places: Places) -> _View:
        kind = wanted["dictionary"]
        if kind == "neurons":
            choosing = torch.from_numpy(np.flatnonzero(places.choosing & places.at_random))
            return cls(science["lm"]["hook_name"], kind, coordinates(raw[choosing].float().mean(0)), 1.0, False)
        sae, scale = dictionary(inputs, science, store.run_dir(wanted["run_id"]), kind == "trained")
        found = Dictionary(sae.encode_pairs, sae.n_latents)
        return cls(wanted["run_id"], f"{kind} n_latents={sae.n_latents}", found, scale, True)

    def rows(self, raw: Tensor) -> Callable[[np.ndarray], Tensor]:
        return lambda places: raw[torch.from_numpy(places)].float().mul_(self.scale)

    def asked(self, prompts: Tensor) -> Dictionary:
        """With the latents most active on each prompt."""
        if not self.asks_prompts:
            return self.dictionary
        return self.dictionary._replace(prompted=most_active(self.dictionary, prompts * self.scale, TOP))


def dictionary(inputs: Inputs, science: dict[str, Any], run_dir: Path, trained: bool) -> tuple[SAE, float]:
    """The trained SAE with raw activations, or the one it started from with scaled ones: (sae, scale of its inputs)."""
    if trained:
        return export.load(run_dir), 1.0
    return init(SAESpec.of(science), science["train"]["seed"], inputs.sample), inputs.scale


def most_active(given: Dictionary, x: Tensor, n: int) -> np.ndarray:
    """int64 [token, n]: the latents of highest activation on x [token, d_in], the highest first; -1 where fewer fire."""
    with torch.inference_mode():
        row, latent, value = active(given.encode(x))
    order = np.lexsort((latent, -value, row))
    row, latent = row[order], latent[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    out = np.full((len(x), n), -1, dtype=np.int64)
    out[row[rank < n], rank[rank < n]] = latent[rank < n]
    return out


def _rows(asked: Asked, about: dict[str, Any], labels: Labels) -> pd.DataFrame:
    """The rows of one dictionary in the table of saescale.records.concepts."""
    hit = pd.array(labels.prompt_score >= TAUS[0], dtype="boolean")
    hit[np.isnan(labels.prompt_score)] = pd.NA
    facts = asked.table[["category", "concept", "n_name_tokens", "count", "frequency", "space_frequency", "ambiguous"]]
    return facts.assign(**about, latent=labels.latent, theta=labels.theta, recall=labels.recall, precision=labels.precision,
                        score=labels.score, f1_natural=labels.f1_natural, prompt_hit=hit)


def describe(inputs: Inputs, content: dict[str, Any], train: Text, scored: Text, asked: Asked, places: Places) -> dict[str, Any]:
    """concepts.json without its dictionaries and warnings."""
    data = inputs.science["data"]
    return {
        "definition": {"score": f"held-out F1 at 1 to {NEGATIVES:.0f}", "thetas": list(THETAS), "taus": list(TAUS),
                       "prompt_tau": TAUS[0], "prevalence": 1 / (1 + NEGATIVES),
                       "negatives": {"category": HARD_SHARE, "ending": HARD_SHARE, "any": 1 - 2 * HARD_SHARE},
                       "min_per_half": MIN_PER_HALF, "min_tokens": content["min_tokens"], "per_name": PER_NAME,
                       "per_ending": PER_ENDING, "at_random": AT_RANDOM, "alive_window_tokens": len(places.token),
                       "neurons": f"both directions of each coordinate of {inputs.science['lm']['hook_name']} about its mean"},
        "corpus": {"name": data["corpus"], "sha256": data["corpus_sha256"], "n_tokens": train.n_tokens,
                   "n_scored_tokens": len(scored.tokens)},
        "categories": asked.categories,
        "left_out": asked.left_out,
    }
