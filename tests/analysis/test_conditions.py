import numpy as np
import pandas as pd
import pytest

from analysis.conditions import keep

TABLE = pd.DataFrame({"N": [1e7, 1e8, 1e9], "C": [1e18, np.nan, 1e20], "kind": ["topk", "relu", "topk"], "Model Size": [1, 2, 3]})


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("N < 1e8", [1, 0, 0]),
        ("N <= 1e8", [1, 1, 0]),
        ("1e7 < N < 1e9", [0, 1, 0]),
        ("C > 0", [1, 0, 1]),
        ("not C > 0", [0, 1, 0]),
        ("kind == 'topk' and N > 1e8", [0, 0, 1]),
        ('N > 1e8 or kind != "topk"', [0, 1, 1]),
        ("`Model Size` >= 2", [0, 1, 1]),
        ("not (N > 1e8 or kind == 'relu')", [1, 0, 0]),
        ("N<1e8 or N>1e8 and C<1e19", [1, 0, 0]),
        ("2 == `Model Size`", [0, 1, 0]),
    ],
)
def test_a_condition_keeps_the_rows_it_names(condition, kept):
    assert keep(TABLE, condition).astype(int).tolist() == kept


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("__import__('os').system('true')", "cannot be read"),
        ("N + 1 > 2", "cannot be read"),
        ("N <", "at its end"),
        ("", "at its end"),
        ("(N > 1", "cannot be read"),
        ("N > 1)", "cannot be read"),
        ("N", "cannot be read"),
        ("params > 3", "the table has N, C, kind"),
        ("N == 'big'", "compares numbers with a text"),
        ("kind > 3", "quote the value"),
        ("N > 1 and and C > 1", "cannot be read"),
        ("lambda: 1 > 0", "cannot be read"),
        ("N > 1; C > 1", "cannot be read"),
        ("N > 1 and 'a' > 3", "name a column on one side"),
    ],
)
def test_what_is_not_the_small_language_is_refused(condition, said):
    with pytest.raises(ValueError, match="condition") as error:
        keep(TABLE, condition)
    assert said in str(error.value)
