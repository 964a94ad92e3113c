"""Which law of a family the data ask for: AIC, BIC and the held-out test side by side.

AIC and BIC count the noise scale as a parameter and take the number of clusters as n; both from least squares in ln y. A
larger law is chosen over a smaller one only if its BIC is lower by more than 6 and its held-out error is not larger:
information criteria alone prefer laws that are wrong far outside the data.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.estimate import BIC_NEEDED, score
from analysis.laws import Law, find
from analysis.rows import read_rows


def compare(
    laws: Sequence[str | Law] | str | Law, table: pd.DataFrame | Mapping, *, cluster: str | Sequence | None = None
) -> pd.DataFrame:
    """One row per law, smaller laws first: law, params, status, rms_ln, aic, bic, held_out (mean absolute error of held-out
    rows in ln y, NaN where none can be held out), chosen. A single law is compared with those it declares as nested.
    Errors: as `analysis.fit`; laws must explain the same column from the same columns."""
    if isinstance(laws, str | Law):
        laws = [laws, *find(laws).nested]
    found = sorted((find(law) for law in laws), key=lambda law: len(law.params))
    if len({(law.y, frozenset(law.columns)) for law in found}) > 1:
        raise ValueError(f"The laws {', '.join(law.name for law in found)} read different columns: compare laws of one family.")
    records = [score(law, read_rows(law, table, cluster)) for law in found]
    chosen = _choose(records)
    return pd.DataFrame([record | {"chosen": i == chosen} for i, record in enumerate(records)])


def _choose(records: list[dict]) -> int | None:
    """Index of the law to use: larger only for BIC lower by more than 6 and a held-out error that is not larger."""
    chosen = None
    for i, record in enumerate(records):
        if record["status"] != "ok":
            continue
        best = records[chosen] if chosen is not None else None
        if best is None or (record["bic"] < best["bic"] - BIC_NEEDED and not record["held_out"] > best["held_out"]):
            chosen = i
    return chosen
