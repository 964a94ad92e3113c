"""Which rows of a table to keep, by a condition (saescale/conditions.py is its language) whose names are columns."""

import operator

import numpy as np
import pandas as pd

from saescale.conditions import Name, parse

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}


def keep(table: pd.DataFrame, condition: str) -> np.ndarray:
    """bool [row]: where `condition` holds. A comparison with a missing value holds nowhere, except != .

    Errors: `ValueError` naming what cannot be read, or the columns there are when a name is none of them.
    """
    parsed = parse(condition)
    for operand in parsed.operands():
        if isinstance(operand, Name) and operand.text not in table.columns:
            there = ", ".join(str(column) for column in table.columns)
            raise ValueError(f"The condition {condition!r} names {operand.text!r}, which is no column: the table has {there}.")

    def compare(sign: str, *sides) -> np.ndarray:
        columns = [table[side.text] for side in sides if isinstance(side, Name)]
        if any(isinstance(side, str) for side in sides) and any(map(pd.api.types.is_numeric_dtype, columns)):
            raise ValueError(f"The condition {condition!r} compares numbers with a text: leave the quotes out.")
        if any(isinstance(side, float) for side in sides) and not all(map(pd.api.types.is_numeric_dtype, columns)):
            raise ValueError(f"The condition {condition!r} compares a column of texts with a number: quote the value.")
        if not columns:
            raise ValueError(f"The condition {condition!r} compares {sides[0]!r} with {sides[1]!r}: name a column on one side.")
        return _COMPARE[sign](*(table[side.text] if isinstance(side, Name) else side for side in sides)).to_numpy(bool)

    return parsed.holds(compare)
