import numpy as np
import pandas as pd
import pytest

from analysis.compute import cost
from analysis.reading import parse_columns, points, read_points


def plain(rows=12, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"params": np.geomspace(1e7, 1e9, rows), "tokens": np.geomspace(1e9, 1e10, rows), "loss": 2 + rng.random(rows)}
    )


NAMES = {"N": "params", "D": "tokens"}


def test_columns_are_renamed_and_compute_is_counted_by_the_named_rule():
    found = points(plain(), NAMES)
    assert (found["C"] == 6 * found["N"] * found["D"]).all() and found.attrs["compute"] == "C = 6*N*D"
    assert points(plain(), NAMES, compute="12*768*N*D")["C"].iloc[0] == pytest.approx(12 * 768 * 1e7 * 1e9)
    with_width = plain().assign(d_in=128)
    assert points(with_width, NAMES, compute="12*d_in*N*D").attrs["cost"].factor == 12 * 128


def test_tokens_follow_from_size_and_compute():
    table = plain().assign(flop=lambda t: 6 * t["params"] * t["tokens"]).drop(columns="tokens")
    found = points(table, {"N": "params", "C": "flop"})
    np.testing.assert_allclose(found["D"], plain()["tokens"])
    assert found.attrs["compute"] == "D = C / (6*N)"


def test_compute_as_given_sets_the_price_of_a_token():
    table = plain().assign(C=lambda t: 1536 * t["params"] * t["tokens"])
    found = points(table, NAMES)
    assert found.attrs["cost"].factor == pytest.approx(1536) and found.attrs["compute"].startswith("C as given")


def test_a_condition_may_use_law_names_and_own_names_and_what_it_dropped_is_counted():
    found = points(plain(), NAMES, where="C < 1e18 and tokens > 1e9")
    assert 0 < len(found) < 12 and found.attrs["dropped"] == 12 - len(found)


def test_the_hash_follows_the_numbers_used_and_not_the_order_of_the_rows():
    one, table = points(plain(), NAMES), plain()
    assert points(table.sample(frac=1, random_state=1).assign(note="x"), NAMES).attrs["data_hash"] == one.attrs["data_hash"]
    table.loc[3, "loss"] += 1e-9
    assert points(table, NAMES).attrs["data_hash"] != one.attrs["data_hash"]


def spoilt(**cells):
    table = plain().astype(object) if any(isinstance(v, str) for v in cells.values()) else plain()
    for name, value in cells.items():
        table.loc[4, name] = value
    return table


@pytest.mark.parametrize(
    ("table", "columns", "said"),
    [
        (plain(), {"N": "size", "D": "tokens"}, "has no column 'size': it has params, tokens, loss"),
        (plain(), {}, "has no N, D"),
        (spoilt(loss=np.nan), NAMES, "loss is missing in 1 row of table (first: row 6)"),
        (spoilt(loss=-1.0), NAMES, "loss is not above 0"),
        (spoilt(loss=np.inf), NAMES, "loss is infinite"),
        (spoilt(params=0.0), NAMES, "N is not above 0"),
        (spoilt(params="7B"), NAMES, "holds '7B' in row 6"),
        (
            pd.concat([plain(), plain().iloc[:1]], ignore_index=True),
            NAMES,
            "repeat an earlier one in every column (1, first: row 14)",
        ),
        (plain().assign(metric=["bits"] * 6 + ["nats"] * 6), NAMES, "mixes metric bits, nats"),
        (plain().assign(C=lambda t: 6 * t.params * t.tokens * np.where(t.index < 6, 1, 1e9)), NAMES, "mixes units"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_with_the_reason(table, columns, said):
    with pytest.raises(ValueError) as error:
        points(table, columns)
    assert said in str(error.value)


def test_rows_that_a_condition_leaves_out_may_be_as_bad_as_they_like():
    assert len(points(spoilt(loss=np.nan), NAMES, where="loss > 0")) == 11


def test_a_condition_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing is left of 12 rows"):
        points(plain(), NAMES, where="loss > 100")


def test_repeated_points_with_a_seed_column_are_kept_and_said():
    table = pd.concat([plain().assign(seed=0), plain().assign(seed=1)], ignore_index=True)
    assert points(table, NAMES).attrs["warnings"] == ["points_repeated"]


@pytest.mark.parametrize(
    ("content", "said"), [("", "cannot be read as CSV"), ("N,D,loss\n", "a header and no rows"), (None, "There is no table")]
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, said):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=said):
        read_points(path)


@pytest.mark.parametrize("rule", ["6*N", "6*N*D*D", "N/D", "x*N*D", "-6*N*D", "0ND"])
def test_a_counting_rule_that_is_no_product_of_n_and_d_is_refused(rule):
    with pytest.raises(ValueError, match="counting rule"):
        cost(rule)


@pytest.mark.parametrize("text", ["N", "N=", "=x", "N=a,N=b"])
def test_columns_that_cannot_be_read_are_refused(text):
    with pytest.raises(ValueError, match="columns"):
        parse_columns(text)
