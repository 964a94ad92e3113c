"""concepts.parquet and concepts.json of a sweep: which concepts its dictionaries hold. Written and read here, without torch.

One row of the table is one concept in one dictionary:

    run_id            str     the run; for `neurons` the hook whose coordinates they are
    dictionary        str     trained, or a control: untrained (the same run before its first step), neurons (no dictionary),
                              permuted (trained, with the labels at random tokens)
    n_latents         int     size of the dictionary
    n_alive           int     latents that fired on the tokens that were looked at
    seed              int     of the initialisation
    category, concept str
    n_name_tokens     int     tokens of the concept's commonest spelling
    count             int     occurrences in the text the dictionaries were trained on
    frequency         float   count per token of that text
    space_frequency   float   occurrences between two spaces per token of that text; null: not counted (code)
    ambiguous         bool    the name also means something else
    latent            int     the concept's latent, -1: none fired on it
    theta             float   its threshold as a share of its maximum; null: no latent
    recall, precision float   on the scoring half; precision at the fixed prevalence
    score             float   F1 of the two; null: too few occurrences
    f1_natural        float   F1 at the prevalence of the text
    prompt_hit        bool    whether one of the five latents most active on a short prompt has a score of definition.prompt_tau;
                              null: not asked

A concept is a pair (category, concept): its frequency, counts and flags are the same in every row. concepts.json holds

    definition    thetas, prevalence, negatives, min_per_half, min_tokens, taus (score thresholds, headline first), prompt_tau
    corpus        name, sha256, n_tokens (of the training text), n_scored_tokens
    categories    name -> closed (a list with all its members), n_names, n_counted, n_scored
    left_out      [{category, concept, reason}]; what was asked for and has no row
    dictionaries  [{run_id, dictionary, n_latents, n_alive, seed}]
    warnings      sentences
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from saescale.records.store import Damaged, read_json, write_json, write_whole

SCHEMA = 2
TABLE, ABOUT = "concepts.parquet", "concepts.json"
COSINE = "cosine"  # folder of the same two files by what is known, beside them where the features are synthetic
DICTIONARIES = ("trained", "untrained", "neurons", "permuted")
COLUMNS = {
    "run_id": "str", "dictionary": "str", "n_latents": "int64", "n_alive": "int64", "seed": "int64",
    "category": "str", "concept": "str", "n_name_tokens": "int64", "count": "int64", "frequency": "float64",
    "space_frequency": "float64", "ambiguous": "bool", "latent": "int64", "theta": "float64", "recall": "float64",
    "precision": "float64", "score": "float64", "f1_natural": "float64", "prompt_hit": "boolean",
}  # fmt: skip


@dataclass(frozen=True)
class ConceptRecord:
    """What a sweep's dictionaries hold. `about` is concepts.json, `table` has COLUMNS; a missing number is NaN or <NA>."""

    about: dict[str, Any]
    table: pd.DataFrame

    @property
    def concepts(self) -> pd.DataFrame:
        """One row per concept, rarest first: what does not depend on the dictionary."""
        facts = ["category", "concept", "n_name_tokens", "count", "frequency", "space_frequency", "ambiguous"]
        once = self.table[facts].drop_duplicates(["category", "concept"])
        return once.sort_values(["frequency", "category", "concept"], ignore_index=True)

    def at_text_prevalence(self) -> ConceptRecord:
        """The same with F1 at the prevalence of the text as the score: another definition of presence."""
        definition = {**self.about.get("definition", {}), "score": "held-out F1 at the text's prevalence"}
        return ConceptRecord({**self.about, "definition": definition}, self.table.assign(score=self.table["f1_natural"]))

    def best_latents(self, run_id: str) -> pd.DataFrame:
        """The trained run's rows of concepts that have a latent, highest score first. Raises ValueError for an unknown run."""
        rows = self.table[(self.table["run_id"] == run_id) & (self.table["dictionary"] == "trained")]
        if rows.empty:
            known = sorted(set(self.table.loc[self.table["dictionary"] == "trained", "run_id"]))
            raise ValueError(f"{run_id} was not scored for concepts. Choose one of: {', '.join(known)}.")
        return rows[rows["latent"] >= 0].sort_values("score", ascending=False, ignore_index=True)


def write(folder: Path, about: dict[str, Any], table: pd.DataFrame) -> Path:
    """Both files, the description last: it is there exactly when the table is whole."""
    missing = [name for name in COLUMNS if name not in table]
    assert not missing, f"no {missing} in the table of concepts"
    wrong = set(table["dictionary"]) - set(DICTIONARIES)
    assert not wrong, f"unknown dictionaries {wrong}"
    ordered = table[list(COLUMNS)].astype(COLUMNS)
    write_whole(folder / TABLE, lambda aside: ordered.to_parquet(aside, engine="pyarrow", index=False))
    write_json(folder / ABOUT, about | {"schema": SCHEMA})
    return folder / TABLE


def read(folder: Path) -> ConceptRecord | None:
    """The sweep's concept record, or None where nothing was scored. Raises Damaged when it is there and cannot be read."""
    about = read_json(folder / ABOUT)
    if about is None:
        return None
    again = "Run `saescale concepts` on the sweep again."
    if about.get("schema") != SCHEMA:
        raise Damaged(f"{folder / ABOUT} was written by another version of saescale (schema {about.get('schema')}, "
                      f"here {SCHEMA}). {again}")
    try:
        table = pd.read_parquet(folder / TABLE, engine="pyarrow")
    except (OSError, ValueError) as e:
        raise Damaged(f"{folder / TABLE} cannot be read ({' '.join(str(e).split())}). {again}") from e
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise Damaged(f"{folder / TABLE} lacks the columns {', '.join(missing)}. {again}")
    return ConceptRecord(about, table[list(COLUMNS)].astype(COLUMNS))
