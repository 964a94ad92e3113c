"""A table's rows as a law reads them: checked, hashed and grouped into clusters. Refuses what no fit could use."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import Law

FEW_CLUSTERS = 10
_CORRELATED = 0.98


@dataclass(frozen=True)
class Rows:
    """columns: name -> [row]; ln_y [row]; cluster [row] codes 0..n_clusters - 1 and their names; warnings as codes."""

    columns: dict[str, np.ndarray]
    ln_y: np.ndarray
    cluster: np.ndarray
    cluster_names: tuple[str, ...]
    clustered_by: str | None
    warnings: tuple[str, ...]

    @property
    def n_rows(self) -> int:
        return len(self.ln_y)

    @property
    def n_clusters(self) -> int:
        return len(self.cluster_names)

    @property
    def data_hash(self) -> str:
        """Of the values used, rows in order of value: the table's own order does not matter."""
        groups = [self.cluster] if self.clustered_by else []
        table = np.stack([*self.columns.values(), np.exp(self.ln_y), *groups], axis=1)
        ordered = table[np.lexsort(table.T[::-1])]
        return hashlib.sha256("\n".join([*self.columns, *map(repr, ordered.ravel().tolist())]).encode()).hexdigest()[:16]

    def part(self, keep: np.ndarray) -> "Rows":
        """Some rows [row] bool, with their clusters renumbered."""
        codes, cluster = np.unique(self.cluster[keep], return_inverse=True)
        names = tuple(self.cluster_names[code] for code in codes)
        columns = {name: values[keep] for name, values in self.columns.items()}
        return Rows(columns, self.ln_y[keep], cluster, names, self.clustered_by, self.warnings)


def read_rows(law: Law, table: pd.DataFrame | Mapping, cluster: str | Sequence | None = None) -> Rows:
    """The law's own columns of the table. Errors: `ValueError` naming what is missing, not a number, not positive, constant,
    or too little for the law's parameters."""
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(dict(table))
    values = _numbers(law, frame)
    ln_y = np.log(values.pop(law.y))
    if len(ln_y) > 1 and np.ptp(ln_y) < 1e-12:
        raise ValueError(f"Column {law.y!r} has the same value in all {len(ln_y)} rows: there is nothing to explain.")
    _check_design(law, values, len(ln_y))
    codes, names, by = _clusters(frame, cluster)
    return Rows(values, ln_y, codes, names, by, tuple(_row_warnings(law, values, ln_y, len(names))))


def _numbers(law: Law, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    wanted = [*law.columns, law.y]
    if missing := [name for name in wanted if name not in frame.columns]:
        raise ValueError(
            f"The law {law.name!r} needs the columns {', '.join(wanted)}; {', '.join(missing)} is missing from the table, which"
            f" has {', '.join(map(str, frame.columns))}: rename or map its columns."
        )
    out = {}
    for name in wanted:
        try:
            values = np.asarray(frame[name], dtype=float)
        except (TypeError, ValueError):
            raise ValueError(f"Column {name!r} holds something that is not a number: the law {law.name!r} needs some.") from None
        if bad := int((~(np.isfinite(values) & (values > 0))).sum()):
            first = int(np.argmax(~(np.isfinite(values) & (values > 0))))
            raise ValueError(
                f"Column {name!r} has {bad} of {len(values)} values that are missing, infinite, zero or negative (first in row"
                f" {first}: {values[first]}); a power law needs positive numbers: drop or correct those rows."
            )
        out[name] = values
    return out


def _check_design(law: Law, values: dict[str, np.ndarray], n_rows: int) -> None:
    needed = len(law.params) + (len(_cells_of(law, values)) if law.levels else 0)
    if n_rows <= needed:
        raise ValueError(
            f"The law {law.name!r} has {needed} parameters and the table {n_rows} rows: give at least {needed + 1} rows, better"
            f" {3 * needed}, or choose a smaller law."
        )
    for name, column in values.items():
        if len(np.unique(column)) < 2:
            raise ValueError(
                f"Column {name!r} has one value only ({column[0]:g}): the law {law.name!r} cannot tell how {law.y} depends on it."
                " Vary it, or choose a law without it."
            )
    distinct = len(np.unique(np.stack(list(values.values()), axis=1), axis=0))
    if distinct < needed:
        raise ValueError(
            f"The {n_rows} rows hold only {distinct} distinct combinations of {', '.join(values)}, fewer than the {needed}"
            f" parameters of the law {law.name!r}: repeated runs do not help here, add other settings or choose a smaller law."
        )


def _cells_of(law: Law, values: dict[str, np.ndarray]) -> np.ndarray:
    return np.unique(np.stack([values[name] for name in law.levels], axis=1), axis=0)


def _clusters(frame: pd.DataFrame, cluster: str | Sequence | None) -> tuple[np.ndarray, tuple[str, ...], str | None]:
    if cluster is None:
        return np.arange(len(frame)), tuple(map(str, frame.index)), None
    if isinstance(cluster, str):
        if cluster not in frame.columns:
            raise ValueError(f"There is no column {cluster!r} to cluster by; the table has {', '.join(map(str, frame.columns))}.")
        labels, by = frame[cluster], cluster
    else:
        labels, by = pd.Series(list(cluster)), getattr(cluster, "name", None) or "cluster"
    if len(labels) != len(frame) or labels.isna().any():
        raise ValueError(f"Clusters must be given for each of the {len(frame)} rows, none missing: complete {by!r}.")
    codes, names = pd.factorize(labels.astype(str), sort=True)
    if len(names) < 2:
        raise ValueError(f"All rows belong to one cluster ({names[0]}): uncertainty needs at least two, better ten.")
    return codes, tuple(names), str(by)


def _row_warnings(law: Law, values: dict[str, np.ndarray], ln_y: np.ndarray, n_clusters: int) -> list[str]:
    found = []
    if len(ln_y) < 3 * len(law.params):
        found.append("few_rows")
    if n_clusters < FEW_CLUSTERS:
        found.append("few_clusters")
    whole = np.stack([*values.values(), ln_y], axis=1)
    if len(np.unique(whole, axis=0)) < len(whole):
        found.append("duplicate_rows")
    names = list(values)
    if any(abs(np.corrcoef(np.log(values[a]), np.log(values[b]))[0, 1]) > _CORRELATED for a in names for b in names if a < b):
        found.append("columns_move_together")
    return found
