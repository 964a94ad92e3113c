"""From a finished run to what is said of its latents: joins the plan it belongs to, its record, and what measure/ computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saescale.campaign import ladder
from saescale.campaign.local import Progress
from saescale.campaign.plan import PlannedRun
from saescale.campaign.recorded import find
from saescale.measure import latents as of_latents
from saescale.measure import steer, steering
from saescale.measure.subject import Subject, use_threads
from saescale.records import concepts as concept_record
from saescale.records import latents as records
from saescale.records.store import Store, read_json, write_json
from saescale.sae import export

SHOWN = 8  # cards of a scored sweep's report


@dataclass(frozen=True)
class Look:
    """One run, looked at as part of one sweep."""

    store: Store
    sweep: str
    plan: Mapping[str, Any]
    run: PlannedRun
    subject: Subject

    @classmethod
    def at(cls, store: Store, run: str, sweep: str | None = None, text: str = "held_out", n_tokens: int | None = None) -> Look:
        """`run` is the beginning or end of an id. Raises ValueError, one sentence, for a run whose latents cannot be shown."""
        found = find(store, run)
        ladder.require_readable(found, store)
        name, plan = ladder.sweep_of(store, found.run_id, sweep)
        use_threads(found.execution)
        return cls(store, name, plan, found, subject(store, found, text, n_tokens))

    @property
    def folder(self) -> Path:
        return self.store.sweep_dir(self.sweep)

    def concept(self, name: str) -> dict[str, Any]:
        """The row of concepts.parquet that says which latent of this run is best for the concept."""
        return concept_row(self.folder, self.run.run_id, name)

    def cards(self, concepts: Mapping[int, Mapping[str, Any] | None], progress: Progress) -> list[dict[str, Any]]:
        """The cards of some latents (keys; values: the concept each is shown for), made in one pass and stored."""
        subject, science = self.subject, self.subject.science
        latents = list(concepts)
        of_latents.check_latents(science["sae"]["n_latents"], latents)
        direct = subject.lm.direct_logits if science["lm"]["hook_name"].endswith(of_latents.RESIDUAL) else None
        n = subject.n_batches
        note = f"{len(latents)} of n_latents={science['sae']['n_latents']}"
        blocks = subject.blocks(lambda i: progress.stage("latents", i, n, note))
        made = of_latents.cards(subject.sae, subject.text, blocks, latents, self._relatives(), direct)
        progress.stage("latents", n, n, note)
        out = []
        for card, latent in zip(made, latents, strict=True):
            card = of_latents.described(card, self.run.run_id, latent, science, subject.said, concepts[latent])
            write_json(records.card_path(self.folder, self.run.run_id, latent), card)
            out.append(card)
        return out

    def steer(self, latent: int, concept: Mapping[str, Any] | None, scales: Sequence[float] | None, prompt: str | None,
              how: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """What steering by one latent does to a prompt, and to its concept's log-probability; stored beside the cards.

        `how`: n_new, temperature, seed. Scales are multiples of the maximum on the card, which is made where there is none.
        """
        if prompt is None and concept is None:
            raise ValueError("nothing to steer: give --prompt TEXT, or --concept NAME.")
        if how["n_new"] < 1 or not 0 <= how["temperature"] < float("inf"):
            raise ValueError(f"--tokens-out {how['n_new']} --temperature {how['temperature']}: give 1 token or more, and a "
                             "temperature of 0 or more.")
        subject, scales = self.subject, list(scales or steering.SCALES)
        folder = subject.folder
        of_latents.check_latents(self.run.science["sae"]["n_latents"], [latent])
        ids = None if prompt is None else steer.prompt_ids(subject.tokenizer, prompt, folder.bos_token_id,
                                                           folder.n_ctx - how["n_new"])
        card = records.read_card(self.folder, self.run.run_id, latent) or self.cards({latent: concept}, progress)[0]
        if card["state"] == "silent":
            raise ValueError(f"latent {latent} of {self.run.run_id} never fired on its text: it has no maximum to multiply. "
                             f"Look further with `saescale latent {self.run.run_id} {latent} --text train --tokens N`.")
        found = {"schema": 1, "run_id": self.run.run_id, "latent": latent, "max": card["max"], "text": card["text"],
                 "scales": scales, "prompt": prompt, "how": dict(how), "concept": None, "texts": []}
        if ids is not None:
            progress.stage("steer", 0, 1, f"{len(scales)} scales")
            found["texts"] = steer.steered_texts(subject.lm, subject.sae, latent, card["max"], scales, ids, subject.tokenizer,
                                                 how)
        if concept is not None:
            curves = steering.Steering(subject, scales)
            found["concept"] = {**concept, "trained": curves.of(subject.sae, latent, card["max"], concept["concept"]),
                                "random": curves.of(subject.sae, latent, card["max"], concept["concept"], random=0)}
        progress.stage("steer", 1, 1, "")
        write_json(records.steered_path(self.folder, self.run.run_id, latent), found)
        return found

    def _relatives(self) -> Iterator[of_latents.Relative]:
        for run in ladder.relatives(self.plan, self.run, self.store):
            yield of_latents.Relative(run.run_id, run.science["train"]["seed"], export.load(self.store.run_dir(run.run_id)).W_dec)


def subject(store: Store, run: PlannedRun, text: str = "held_out", n_tokens: int | None = None) -> Subject:
    return Subject(store, run.run_id, dict(run.science), dict(run.execution), text, n_tokens)


def concept_row(folder: Path, run_id: str, name: str) -> dict[str, Any]:
    """The best row of concept `name` in a trained run: category, concept, latent, score and what else the record holds."""
    found = concept_record.read(folder)
    if found is None:
        raise ValueError(f"sweep {folder.name} has no concept scores. Run `saescale concepts` on it first.")
    rows = found.best_latents(run_id)
    fitting = rows[rows["concept"] == name]
    if fitting.empty:
        some = ", ".join(rows["concept"].head(8))
        raise ValueError(f"no latent of {run_id} was chosen for a concept {name!r}. Its best are: {some or 'none'}.")
    return plain(fitting.iloc[0].to_dict())


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the concept table as JSON: numbers of Python, null for what is missing."""
    import pandas as pd

    return {k: None if pd.isna(v) else v.item() if hasattr(v, "item") else v for k, v in row.items()}


def show_best(store: Store, sweep: str, progress: Progress) -> list[dict[str, Any]]:
    """Make the cards a scored sweep shows in its report: of its largest trained dictionary, the best latents of some concepts.

    Each category gives its best concept, then each its second best, up to SHOWN; a latent stands for one concept only.
    """
    folder = store.sweep_dir(sweep)
    about = read_json(folder / concept_record.ABOUT) or {}
    found = concept_record.read(folder) if about.get("schema") == concept_record.SCHEMA else None
    trained = None if found is None else found.table[found.table["dictionary"] == "trained"]
    if trained is None or trained.empty:
        return []
    run_id = trained.sort_values(["n_latents", "seed"], ascending=[False, True])["run_id"].iloc[0]
    rows = found.best_latents(run_id).dropna(subset=["score"])
    rows = rows.assign(turn=rows.groupby("category").cumcount()).sort_values(["turn", "score"], ascending=[True, False])
    chosen = rows.drop_duplicates("latent").head(SHOWN).drop(columns="turn").to_dict("records")
    if not chosen:
        return []
    return Look.at(store, run_id, sweep).cards({int(row["latent"]): plain(row) for row in chosen}, progress)


def parse_latents(given: Sequence[str]) -> list[int]:
    wrong = [g for g in given if not g.isdecimal()]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no latent: give numbers from 0 up, or --concept NAME.")
    return [int(g) for g in dict.fromkeys(given)]
