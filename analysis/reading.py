"""Any CSV of sizes, tokens and losses as the columns a law wants; what cannot be trusted is refused with the row named."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import conditions
from analysis.compute import Cost, cost

KINDS_OF_LOSS = ("loss_name", "loss_kind", "loss_unit", "loss_units", "unit", "units", "metric", "flops_rule", "compute_rule")
COMPUTE = "6*N*D"
MIXED_RATIO = 100.0  # C / (N D) differing by more between rows is a mixture of units, not of architectures
POSITIVE = ("N", "D", "C", "K", "loss", "lr", "x", "y", "budget")


def parse_columns(text: str | None) -> dict[str, str]:
    """'N=params,D=tokens,loss=loss' -> {"N": "params", ...}. Errors: `ValueError` on anything else."""
    found: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        name, sign, column = (piece.strip() for piece in part.partition("="))
        if not (name and sign and column):
            example = "N=params,D=tokens,loss=loss"
            raise ValueError(f"columns {text!r} cannot be read at {part!r}: give NAME=COLUMN pairs, as in {example}.")
        if name in found:
            raise ValueError(f"columns {text!r} gives {name} twice: once each.")
        found[name] = column
    return found


def read_points(
    path: Path,
    columns: Mapping[str, str] | None = None,
    *,
    needs: Sequence[str] = ("N", "D", "loss"),
    where: str | None = None,
    compute: str | None = None,
) -> pd.DataFrame:
    """The rows of a CSV with the columns of a law (N, D, loss ...; renamed by `columns`), its other columns kept.

    Of N, D and C any two give the third by the counting rule `compute` (default 6*N*D). `where` (analysis.conditions) may
    use law names and the file's own. `.attrs` holds source, data_hash (of the numbers used), cost (a `Cost`), compute
    (words), dropped (rows left out by `where`) and warnings (codes).
    Errors: `ValueError`: no such file or column (lists what there is), texts, missing, infinite or non-positive values,
    rows given twice, several losses or units in one table.
    """
    raw = _read(Path(path))
    return points(raw, columns, needs=needs, where=where, compute=compute, source=Path(path).name)


def points(
    raw: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    *,
    needs: Sequence[str] = ("N", "D", "loss"),
    where: str | None = None,
    compute: str | None = None,
    source: str = "table",
) -> pd.DataFrame:
    """`read_points` for a table already in memory."""
    columns = dict(columns or {})
    table = _renamed(raw, columns, source)
    rule = _rule(table, compute)
    derived = _derivable(table, needs)
    table, rule, compute_words = _derive(table, rule, derived, source) if derived or "C" in table else (table, rule, rule.words)
    whole = len(table)
    if where:
        table = table[conditions.keep(table, where)]
        if table.empty:
            raise ValueError(f"No row of {source} satisfies {where!r}: nothing is left of {whole} rows.")
    _check_numbers(table, [name for name in POSITIVE if name in table and (name in needs or name in columns)], source)
    warnings = _check_rows(table, needs, source)
    table = table.reset_index(drop=True)
    used = [name for name in dict.fromkeys([*needs, "C"]) if name in table]
    table.attrs = {
        "source": source,
        "data_hash": data_hash(table, used),
        "cost": rule,
        "compute": compute_words,
        "dropped": whole - len(table),
        "columns": columns,
        "where": where,
        "warnings": warnings,
    }
    return table


def data_hash(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """16 hex digits of the used numbers, whatever the order of the rows."""
    rows = np.stack([table[name].to_numpy(np.float64) for name in columns], axis=1)
    rows = rows[np.lexsort(rows.T[::-1])]
    return hashlib.sha256(",".join(columns).encode() + rows.tobytes()).hexdigest()[:16]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"There is no table {path}: give the path of a CSV file with a header line.")
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as CSV ({reason}): give a comma-separated file with a header line.") from None
    if table.empty:
        raise ValueError(f"{path} has a header and no rows: there is nothing to fit.")
    return table


def _renamed(raw: pd.DataFrame, columns: dict[str, str], source: str) -> pd.DataFrame:
    lacking = [column for column in columns.values() if column not in raw.columns]
    if lacking:
        there = ", ".join(str(name) for name in raw.columns)
        raise ValueError(f"{source} has no column {', '.join(map(repr, lacking))}: it has {there}.")
    table = raw.copy()
    for name, column in columns.items():
        table[name] = raw[column]
    return table


def _rule(table: pd.DataFrame, compute: str | None) -> Cost:
    same = {
        str(name): float(values.iloc[0])
        for name, values in table.items()
        if pd.api.types.is_numeric_dtype(values) and values.nunique(dropna=False) == 1
    }
    return cost(compute or COMPUTE, same)


def _derivable(table: pd.DataFrame, needs: Sequence[str]) -> str | None:
    """The one of N, D, C that is wanted, absent, and follows from the other two."""
    absent = [name for name in ("N", "D", "C") if name not in table]
    return absent[0] if len(absent) == 1 and (absent[0] in needs or absent[0] == "C") else None


def _derive(table: pd.DataFrame, rule: Cost, name: str | None, source: str) -> tuple[pd.DataFrame, Cost, str]:
    known = [other for other in ("N", "D", "C") if other != name and other in table]
    _check_texts(table, known, source)
    if name is None:
        return table, *_given(table, rule, source)
    one, other = (table[key].to_numpy(float) for key in known)
    values = rule.factor * one * other if name == "C" else other / (rule.factor * one)
    words = rule.words if name == "C" else f"{name} = C / ({rule.rule.replace(f'*{name}', '')})"
    return table.assign(**{name: values}), rule, words


def _given(table: pd.DataFrame, rule: Cost, source: str) -> tuple[Cost, str]:
    """C as the table has it; what it charges per N and D is then read off, so that budgets and sizes stay in one currency."""
    if not {"N", "D"} <= set(table):
        return rule, "C as given"
    ratio = (table["C"] / (table["N"] * table["D"])).to_numpy(float)
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    if not len(ratio):
        return rule, "C as given"
    if ratio.max() > MIXED_RATIO * ratio.min():
        raise ValueError(
            f"{source} mixes units: C / (N D) runs from {ratio.min():.3g} to {ratio.max():.3g} between rows. Bring N, D and C"
            " to one unit each, or leave C out to have it counted."
        )
    factor = float(np.exp(np.log(ratio).mean()))
    about = "" if ratio.max() < 1.05 * ratio.min() else "about "
    return Cost(factor, f"{factor:.4g}*N*D"), f"C as given, {about}{factor:.4g}*N*D"


def _check_texts(table: pd.DataFrame, names: Sequence[str], source: str) -> None:
    for name in names:
        values = table[name]
        if not pd.api.types.is_numeric_dtype(values):
            numbers = pd.to_numeric(values, errors="coerce")
            bad = values[numbers.isna() & values.notna()]
            held = f"{bad.iloc[0]!r} in row {_line(bad)}" if len(bad) else f"{values.dtype} values"
            raise ValueError(f"{name} of {source} holds {held}: give plain numbers in one unit, such as 7e9 for 7B.")


def _check_numbers(table: pd.DataFrame, names: Sequence[str], source: str) -> None:
    _check_texts(table, names, source)
    for name in names:
        values = table[name].astype(float)
        for wrong, what in ((values.isna(), "missing"), (np.isinf(values), "infinite"), (values <= 0, "not above 0")):
            if wrong.any():
                rows = "1 row" if wrong.sum() == 1 else f"{wrong.sum()} rows"
                raise ValueError(
                    f"{name} is {what} in {rows} of {source} (first: row {_line(values[wrong])}): laws are fitted in logarithms."
                    f" Mend the file, or leave such rows out with --where '0 < {name} < 1e300'."
                )


def _line(rows: pd.Series) -> int:
    """Line of the file, its header being line 1."""
    return int(rows.index[0]) + 2


def _check_rows(table: pd.DataFrame, needs: Sequence[str], source: str) -> list[str]:
    missing = [name for name in needs if name not in table]
    if missing:
        there = ", ".join(str(name) for name in table.columns)
        example = f"--columns {missing[0]}=COLUMN"
        raise ValueError(f"{source} has no {', '.join(missing)}: name the column, as in {example}; it has {there}.")
    for name in KINDS_OF_LOSS:
        if name in table and table[name].nunique(dropna=False) > 1:
            kinds = ", ".join(str(value) for value in table[name].unique()[:4])
            choose = f"--where \"{name} == '...'\""
            raise ValueError(f"{source} mixes {name} {kinds}: one law holds for losses of one kind. Choose with {choose}.")
    twice = table.duplicated(keep="first")
    if twice.any():
        raise ValueError(
            f"{source} has rows that repeat an earlier one in every column ({twice.sum()}, first: row {_line(table[twice])}):"
            " a run counted twice narrows every interval. Remove them; true repetitions need a seed or run column."
        )
    numbers = [name for name in needs if name in table]
    return ["points_repeated"] if table.duplicated(numbers).any() else []
