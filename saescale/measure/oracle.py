"""The recovery oracle: which features of a synthetic corpus a dictionary holds, labelled twice. Read `score_features` downwards.

    cosine    by what is known: the largest cosine of a decoder row with the feature's direction (with its plane, if it lies on a
              circle: the length of the row's projection)
    activity  by the labeller of real models (measure.concepts.label), which sees only which latents fire where the feature does

Both give the table of saescale.records.concepts. If the labeller's presence follows frequency and size as the known one's does,
what it says of words can be believed as far as words are like features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saescale.activations.inputs import Inputs
from saescale.activations.synthetic import Truth, rates
from saescale.identity import digest, without_neutral
from saescale.measure.asked import frequencies
from saescale.measure.concepts import MIN_PER_HALF, THETAS, Dictionary, label
from saescale.measure.features import Features
from saescale.measure.firings import NEGATIVES, Concepts
from saescale.measure.places import choose_places, document_halves, permuted
from saescale.measure.recovery import best_alignment
from saescale.measure.score import TAUS, dictionary
from saescale.records.store import Store, read_json
from saescale.sae.model import SAE, Pairs

SCORED_TOKENS = 1_048_576
COSINE_TAUS = (0.7, 0.5, 0.9)
LABELLINGS = ("cosine", "activity")
GENERATOR = ("zipf_exponent", "mean_l0", "max_rate", "n_features", "d_in", "manifold_fraction")
SCORES = ("recall", "precision", "score", "f1_natural")

Record = tuple[dict[str, Any], pd.DataFrame]


def score_features(store: Store, content: dict[str, Any], progress: Callable[[float, float, str], None]) -> dict[str, Record]:
    """By labelling, (description, table) of `content["dictionaries"]` [{"run_id", "dictionary"}]: trained and untrained, and for
    `activity` permuted labels too. Firings are counted over the whole training text, `scoring_tokens` of it are scored."""
    configs = [read_json(store.run_dir(d["run_id"]) / "config.json") for d in content["dictionaries"]]
    inputs = Inputs(store, configs[0]["science"], content["execution"])
    source, known = inputs.train_source, inputs.train_source.truth
    n_batches = source.batches_for(min(content["scoring_tokens"] or SCORED_TOKENS, source.n_tokens))
    features = Features.of(source, n_batches, frequencies(content))
    if not len(features.asked):
        low, high = frequencies(content)
        raise ValueError(f"no feature fires {low:.1e} to {high:.1e} times a token, where presence can change over these "
                         "dictionary sizes: add larger dictionaries, or more features.")
    facts, groups = _facts(features, known), features.groups()
    found_rows: dict[str, list[pd.DataFrame]] = {name: [] for name in LABELLINGS}
    described: dict[str, list[dict[str, Any]]] = {name: [] for name in LABELLINGS}
    for i, (wanted, config) in enumerate(zip(content["dictionaries"], configs, strict=True)):
        science, kind = config["science"], wanted["dictionary"]
        sae, scale = dictionary(inputs, science, store.run_dir(wanted["run_id"]), kind == "trained")
        note = f"{kind} n_latents={sae.n_latents}"
        codes = Codes.of(sae, (source.batch(b).mul_(scale) for b in range(n_batches)))
        about = {"run_id": wanted["run_id"], "n_latents": sae.n_latents, "n_alive": codes.n_alive,
                 "seed": science["train"]["seed"]}
        described["cosine"].append(about | {"dictionary": kind, "n_present": n_present(sae, known)})
        found_rows["cosine"].append(_by_cosine(facts, sae, known, features.asked).assign(**about, dictionary=kind))
        labels = []
        for done, members in enumerate(groups):
            progress(i + done / len(groups), len(configs), note)
            labels.append(_by_activity(codes, features, members))
        for place, named in enumerate((kind, "permuted") if kind == "trained" else (kind,)):
            found = pd.concat([part[place] for part in labels], ignore_index=True)
            described["activity"].append(about | {"dictionary": named})
            found_rows["activity"].append(facts.assign(**found, **about, dictionary=named, prompt_hit=pd.NA))
        progress(i + 1, len(configs), note)
    tables = {name: pd.concat(found_rows[name], ignore_index=True) for name in LABELLINGS}
    return {name: (_about(inputs, features, tables[name], name) | {"dictionaries": described[name]}, tables[name])
            for name in LABELLINGS}


@dataclass(frozen=True)
class Codes:
    """Everything a dictionary says of the scored tokens, kept: each group of features asks for other tokens of the same."""

    offsets: np.ndarray  # int64 [token + 1]
    latents: Tensor  # int32 [pair], by token
    values: Tensor  # float32 [pair], positive
    n_latents: int

    @classmethod
    def of(cls, sae: SAE, blocks: Iterator[Tensor]) -> Codes:
        """`blocks` are the scored tokens in order, as the SAE reads them."""
        counts, latents, values = [], [], []
        with torch.inference_mode():
            for x in blocks:
                pairs = sae.encode_pairs(x)
                on = pairs.values > 0
                counts.append(torch.bincount(pairs.tokens[on], minlength=len(x)))
                latents.append(pairs.latents[on].int())
                values.append(pairs.values[on].float())
        offsets = np.concatenate([[0], torch.cat(counts).numpy().cumsum()])
        return cls(offsets, torch.cat(latents), torch.cat(values), sae.n_latents)

    @property
    def n_alive(self) -> int:
        return len(torch.unique(self.latents))

    def at(self, token: Tensor) -> Pairs:
        """The active pairs of these tokens [token], as SAE.encode_pairs gives those of activations."""
        index = token.numpy()
        counts = self.offsets[index + 1] - self.offsets[index]
        row_offsets = np.concatenate([[0], counts.cumsum()])
        rows = np.repeat(np.arange(len(index)), counts)
        pair = torch.from_numpy(np.arange(len(rows)) - row_offsets[rows] + self.offsets[index][rows])
        return Pairs(values=self.values[pair], tokens=torch.from_numpy(rows), latents=self.latents[pair].long(),
                     row_offsets=torch.from_numpy(row_offsets))


def _by_activity(codes: Codes, features: Features, members: np.ndarray) -> list[pd.DataFrame]:
    """Labels of one group of features: as they fire, and permuted. One category: other members are the hard negatives."""
    found, crowded = features.occurrences(members)
    usable = np.flatnonzero(~crowded)
    rank = np.cumsum(~crowded) - 1  # of a token among the usable ones
    moved = type(found)(found.names, rank[found.last], *(getattr(found, name) for name in (
        "name", "spaced", "n_tokens", "fewest_tokens", "last_token")))
    places = choose_places(moved, np.zeros(len(usable), dtype=np.int32), document_halves(usable))
    concepts = Concepts(np.arange(len(members), dtype=np.int32), np.zeros(len(members), dtype=np.int32))
    token = torch.from_numpy(usable[places.token])
    asked = Dictionary(codes.at, codes.n_latents)
    labels = label(asked, lambda at: token[torch.from_numpy(at)], [places, permuted(places)], concepts)
    return [pd.DataFrame({name: getattr(part, name) for name in ("latent", "theta", *SCORES)}) for part in labels]


def _by_cosine(facts: pd.DataFrame, sae: SAE, known: Truth, asked: np.ndarray) -> pd.DataFrame:
    score, latent = best_alignment(sae.W_dec, known, torch.from_numpy(asked))
    empty = {name: np.nan for name in ("theta", "recall", "precision", "f1_natural")}
    return facts.assign(latent=latent.numpy(), score=score.numpy().astype(np.float64), prompt_hit=pd.NA, **empty)


def beta(settings: Mapping[str, Any]) -> float | None:
    """n latents on a sphere in d dimensions, one at a time, leave a share of its energy ~ n ** -beta with beta = 2 / (d - 1), far
    from n = 1; None unless every feature is one."""
    return 2 / (settings.get("manifold_dim", 2) - 1) if settings["manifold_fraction"] == 1 else None


def n_present(sae: SAE, known: Truth) -> int:
    """How many of ALL features the dictionary holds, asked about or not."""
    score, _ = best_alignment(sae.W_dec, known, torch.arange(len(known.directions)))
    return int((score >= COSINE_TAUS[0]).sum())


def _facts(features: Features, known: Truth) -> pd.DataFrame:
    """What a table of concepts says of each concept, whatever the dictionary; the concept's name is its feature's rank."""
    circle = (known.second != 0).any(1).numpy()[features.asked]
    return pd.DataFrame({
        "category": np.where(circle, "circles", "rays"), "concept": [f"{rank:06d}" for rank in features.asked],
        "n_name_tokens": 1, "count": features.count[features.asked], "frequency": features.frequency,
        "space_frequency": np.nan, "ambiguous": False,
    })  # fmt: skip


def _about(inputs: Inputs, features: Features, table: pd.DataFrame, labelling: str) -> dict[str, Any]:
    settings = inputs.science["activations"]
    cosine = {"score": "largest decoder cosine with the feature's direction", "taus": list(COSINE_TAUS)}
    activity = {"score": "F1 of the best latent where the feature fires", "taus": list(TAUS), "thetas": list(THETAS),
                "prevalence": 1 / (1 + NEGATIVES)}
    first = table[table["run_id"] == table["run_id"].iloc[0]].drop_duplicates("concept")
    asked, scored = (part["category"].value_counts() for part in (first, first[first["score"].notna()]))
    return {
        "definition": {"label": labelling, "min_per_half": MIN_PER_HALF, **(cosine if labelling == "cosine" else activity)},
        "corpus": {"name": "synthetic", "sha256": digest(without_neutral("activations", settings)), "n_tokens": features.n_tokens,
                   "n_scored_tokens": features.n_scored},
        "categories": {name: {"closed": False, "n_names": int(n), "n_counted": int(n), "n_asked": int(n),
                              "n_scored": int(scored.get(name, 0))} for name, n in asked.items()},
        "generator": {name: settings[name] for name in GENERATOR} | {
            "beta": beta(settings), "magnitudes": [settings["magnitude_low"], settings["magnitude_high"]],
            "rates": [float(f"{p:.6g}") for p in rates(settings)]},
        "left_out": [], "warnings": [],
    }  # fmt: skip
