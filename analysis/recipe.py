"""What runs of one law have in common: which settings a table tells apart, and the sentence for rows that differ in them."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from saescale.identity import digest, flatten

# Column -> the override that picks one of its values; "" where none does it alone.
OVERRIDES = {"kind": "", "d_in": "", "hook_name": "lm.hook_name", "k": "sae.k", "sparsity_coeff": "sae.sparsity_coeff",
             "target_l0": "sae.target_l0", "batch_tokens": "train.batch_tokens", "recipe": ""}  # fmt: skip
SAME = tuple(OVERRIDES)
SPARSITY = ("k", "sparsity_coeff", "target_l0")
SHORT = 40  # characters of a value that are shown

# Science keys with a column of their own, and the seeds, over which laws average.
TOLD = {"lm.hook_name", "lm.d_in", "data.data_seed", "sae.kind", "sae.n_latents", "sae.k", "sae.sparsity_coeff", "sae.target_l0",
        "train.n_tokens", "train.batch_tokens", "train.lr", "train.seed"}  # fmt: skip
# Those that follow size, k and horizon by rule where nobody set them: two values for one size, k and horizon are no rule.
BY_RULE = {"sae.k_aux", "train.dead_after_tokens", "train.sparsity_warmup_tokens"}


def recipes(runs: Sequence[Mapping]) -> list[str]:
    """For each run of a plan, the other settings in which runs of its kind differ, as `data.n_ctx=128 train.precision=float32`;
    '' where they differ in none. A value that is long stands as a hash."""
    flat = [{k: json.dumps(v) for k, v in flatten(run["science"]).items() if k not in TOLD} for run in runs]
    kinds, seen = [], defaultdict(set)
    for run, settings in zip(runs, flat, strict=True):
        sae, n_tokens = run["science"]["sae"], run["science"]["train"]["n_tokens"]
        kinds.append(sae["kind"])
        for key, value in settings.items():
            cell = (sae["n_latents"], sae.get("k"), n_tokens) if key in BY_RULE else ()
            seen[key, sae["kind"], cell].add(value)
    varied = {(key, kind) for (key, kind, _), values in seen.items() if len(values) > 1}
    return [" ".join(f"{key}={_short(value)}" for key, value in settings.items() if (key, kind) in varied)
            for kind, settings in zip(kinds, flat, strict=True)]  # fmt: skip


def _short(value: str) -> str:
    return value.strip('"') if len(value) <= SHORT else digest(value)[:8]


def refuse_mixed(rows: pd.DataFrame, names: Sequence[str] = SAME) -> None:
    """Refuse rows that differ in one of the columns `names`; a column that is not there (an older table's) says nothing.

    Errors: `ValueError` naming the column, its values, and the override that picks one.
    """
    for name in names:
        if name in rows and rows[name].nunique(dropna=False) > 1:
            values = [f"{value:g}" if isinstance(value, float) else str(value) for value in rows[name].unique()]
            one, key = values[0], OVERRIDES.get(name)
            pick = one.split(" ")[0] if name == "recipe" else f"{key}={one}" if key else ""
            how = f", with {pick} as an override of every verb" if pick else ""
            raise ValueError(f"The table mixes {name} {', '.join(values)}, whose losses do not belong to one law: keep one of "
                             f"them{how}.")  # fmt: skip
