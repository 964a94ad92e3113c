"""The verbs fit, isoflop and predict as typed, on a synthetic table and on a sweep's own runs."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from saescale.campaign.follow import sizes, write_follow_up
from saescale.campaign.sweep import cells, load

NAMES = "N=params,D=tokens"


def loss(n, d):
    return 1.69 + 406.4 * n**-0.34 + 410.7 * d**-0.28


@pytest.fixture
def table(tmp_path, monkeypatch):
    """t.csv in the working directory: five budgets of seven sizes, two runs each, under names of its own."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    for c in 10.0 ** np.arange(17, 20.1, 0.75):
        best = 1.344 * (c / 6) ** 0.4516
        for n in best * np.geomspace(1 / 6, 6, 7):
            for run in range(2):
                rows.append((n, c / 6 / n, c, loss(n, c / 6 / n) * math.exp(rng.normal(0, 0.002)), f"{len(rows)}", run))
    frame = pd.DataFrame(rows, columns=["params", "tokens", "flop", "loss", "run", "seed"])
    frame.to_csv("t.csv", index=False)
    return frame


@pytest.mark.usefixtures("table")
def test_fit_prints_a_page_that_ends_with_the_next_command(saescale):
    code, out, _ = saescale("fit", "t.csv", "--columns", NAMES, "--where", "flop < 5e19", "--draws", 100, "--delta", "1e-3")
    assert code == 0 and "14 rows left out by 'flop < 5e19'" in out and "C = 6*N*D" in out
    assert "nd: loss = E + A N**-alpha + B D**-beta" in out and "threshold 0.001" in out
    assert out.rstrip().endswith(f"next: saescale isoflop t.csv --columns {NAMES} --where 'flop < 5e19'")


@pytest.mark.usefixtures("table")
def test_fit_as_json_holds_the_fit_and_how_the_table_was_read(saescale, tmp_path):
    code, out, _ = saescale("fit", "t.csv", "--columns", NAMES, "--draws", 100, "--cluster", "run", "--json", "-")
    said = json.loads(out)
    assert code == 0 and said["status"] == "ok" and said["table"]["compute"] == "C = 6*N*D"
    assert said["params"]["alpha"] == pytest.approx(0.34, abs=0.05) and said["conventions"]["cluster"] == "run"
    code, out, _ = saescale("fit", "t.csv", "--columns", NAMES, "--draws", 100, "--cluster", "run", "--json", "fit.json")
    assert json.loads((tmp_path / "fit.json").read_text()) == said and "fit.json written" in out


@pytest.mark.usefixtures("table")
def test_a_file_that_is_there_is_not_overwritten(saescale, tmp_path):
    (tmp_path / "mine.json").write_text("mine")
    code, out, err = saescale("fit", "t.csv", "--columns", NAMES, "--json", "mine.json")
    assert (code, out) == (2, "") and "not overwritten" in err and (tmp_path / "mine.json").read_text() == "mine"


@pytest.mark.usefixtures("table")
def test_isoflop_of_a_table_finds_its_budgets(saescale):
    code, out, _ = saescale("isoflop", "t.csv", "--columns", NAMES + ",C=flop", "--draws", 100, "--json", "-")
    said = json.loads(out)
    assert code == 0 and len(said["budgets"]) == 5 and said["conventions"]["degree"] == 3
    assert said["lines"]["N"]["exponent"]["estimate"] == pytest.approx(0.28 / 0.62, abs=0.05)
    code, out, _ = saescale("isoflop", "t.csv", "--columns", NAMES, "--degree", 2, "--draws", 100)
    assert "parabola in ln N" in out and "next: saescale predict t.csv" in out
    assert len(re.findall(r"^ .{9} +\d+ +\S+ +\S+ to \S+ +\S+ +\S+  resolved$", out, re.M)) == 5  # columns stay apart


@pytest.mark.usefixtures("table")
def test_predict_at_a_point_and_for_a_budget(saescale):
    code, out, _ = saescale("predict", "t.csv", "--columns", NAMES, "--at", "N=1e8,D=1e10", "--draws", 100, "--json", "-")
    said = json.loads(out)
    assert code == 0 and said["loss"]["lo"] < loss(1e8, 1e10) < said["loss"]["hi"] and said["at"]["C"] == pytest.approx(6e18)
    code, out, _ = saescale("predict", "t.csv", "--columns", NAMES, "--flops", "1e21", "--draws", 100)
    assert code == 0 and "decades beyond the fitted range: C 1.00" in out and "wasted C" in out and "isoflop" in out


@pytest.mark.usefixtures("table")
def test_figures_of_a_table_are_drawn_into_the_folder_asked_for(saescale, tmp_path):
    saescale("fit", "t.csv", "--columns", NAMES, "--draws", 100, "--figures", "shown")
    saescale("isoflop", "t.csv", "--columns", NAMES, "--draws", 100, "--figures", "shown")
    assert {p.name for p in (tmp_path / "shown").glob("*.png")} == {"law_fit.png", "residuals.png", "valleys.png"}


@pytest.mark.parametrize(("arguments", "said"), [
    (["fit", "none.csv"], "There is no table none.csv"),
    (["fit", "t.csv"], "has no N, D: name the column"),
    (["fit", "t.csv", "--columns", "N=size,D=tokens"], "has no column 'size': it has params, tokens, flop, loss, run, seed"),
    (["fit", "t.csv", "--columns", "N;params"], "cannot be read"),
    (["fit", "t.csv", "--columns", NAMES, "--law", "chinchila"], "choose one of"),
    (["fit", "t.csv", "--columns", NAMES, "--objective", "l2"], "choose one of huber, lad, squared"),
    (["fit", "t.csv", "--columns", NAMES, "--where", "flop < import"], "'import', which is no column"),
    (["fit", "t.csv", "--columns", NAMES, "--where", "seed > 5"], "nothing is left of 70 rows"),
    (["fit", "t.csv", "--columns", NAMES, "--where", "params < 6e6"], "rows"),
    (["fit", "t.csv", "--columns", NAMES, "--cluster", "trunk"], "has no column 'trunk' to cluster by"),
    (["fit", "t.csv", "--columns", NAMES, "--draws", "7"], "too few for a 95 % interval"),
    (["fit", "t.csv", "--columns", NAMES, "--json", "no/such/o.json"], "There is no folder no/such"),
    (["fit", "t.csv", "seed=0"], "is a table and takes no overrides"),
    (["isoflop", "t.csv", "--columns", NAMES, "--degree", "4"], "choose 3 (cubic) or 2"),
    (["predict", "t.csv", "--columns", NAMES], "Say what to predict"),
    (["predict", "t.csv", "--columns", NAMES, "--at", "N=big"], "give NAME=NUMBER pairs"),
    (["predict", "t.csv", "--columns", NAMES, "--at", "N=1e8"], "give D too"),
    (["predict", "t.csv", "--columns", NAMES, "--flops", "-3"], "flops=-3.0 cannot be predicted at"),
    (["predict", "t.csv", "--columns", NAMES, "--flops", "1e21", "--as-sweep", "next.yaml"], "name a sweep with --like"),
    (["predict", "t.csv", "--columns", NAMES, "--at", "N=1,D=1", "--as-sweep", "n.yaml"], "give --flops too")])  # fmt: skip
@pytest.mark.usefixtures("table")
def test_bad_input_is_one_sentence_on_stderr_and_exit_code_2(saescale, arguments, said):
    code, out, err = saescale(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("saescale: ") and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda t: t.assign(loss=t["loss"].where(t.index != 3)), "loss is missing in 1 row"),
    (lambda t: t.assign(loss=-t["loss"]), "loss is not above 0 in 70 rows"),
    (lambda t: t.assign(loss=2.0), "same value in all 70 rows"),
    (lambda t: t.assign(params=1e8), "one value only"),
    (lambda t: pd.concat([t, t.iloc[:5]]), "repeat an earlier one"),
    (lambda t: t.assign(unit=np.where(t["seed"] == 0, "nats", "bits")), "mixes unit"),
    (lambda t: t.iloc[:5], "5 parameters and the table 5 rows")])  # fmt: skip
def test_a_spoilt_table_is_refused(saescale, table, spoil, said):
    spoil(table).to_csv("t.csv", index=False)
    code, out, err = saescale("fit", "t.csv", "--columns", NAMES, "--draws", 100)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


@pytest.mark.usefixtures("six")
def test_a_sweep_is_fitted_from_its_own_runs_with_trunks_as_clusters(saescale):
    assert saescale("collect", "tiny")[0] == 0
    code, out, _ = saescale("fit", "tiny", "--law", "nd", "--draws", 100, "--json", "-")
    said = json.loads(out)
    assert code == 0 and said["conventions"]["cluster"] == "trunk_id" and said["n_clusters"] < said["n_rows"]
    code, out, _ = saescale("isoflop", "tiny", "--draws", 100)
    assert code == 0 and "ln loss, 5 sizes around the lowest" in out and "saescale predict tiny --flops" in out
    code, _, err = saescale("isoflop", "tiny", "--columns", NAMES)
    assert code == 2 and "--columns and --compute are for tables" in err


def test_predict_writes_a_sweep_that_can_be_planned_and_never_over_another(saescale, six):
    saescale("collect", "tiny")
    command = ("predict", "tiny", "--law", "nd", "--flops", "3.2e9", "--draws", 100, "--as-sweep", "sweeps/further.yaml")
    code, out, _ = saescale(*command)
    assert code == 0 and out.rstrip().endswith("next: saescale plan further")
    sweep = load("further")
    assert {c.varied["budget.flops"] for c in cells(sweep)} == {3.2e9} and len(list(cells(sweep))) == 2 * len(
        sweep.grids["predicted"]["sae.n_latents"])  # fmt: skip
    before = (six.root / "sweeps" / "further.yaml").read_bytes()
    code, _, err = saescale(*command)
    assert code == 2 and "not overwritten" in err and (six.root / "sweeps" / "further.yaml").read_bytes() == before


def test_the_sizes_of_a_follow_up_lie_an_octave_around_the_prediction():
    assert sizes(1024) == [512, 720, 1024, 1456, 2048] and sizes(20) == [10, 14, 20, 28, 40]


def test_a_follow_up_takes_the_overrides_along_and_enough_tokens(project):
    path = write_follow_up(project.root / "sweeps" / "more.yaml", load("tiny", ["train.lr=0.01", "seed=0,1,2"]), 1e12, 500, 64)
    text = path.read_text()
    assert "train.lr: 0.01" in text and "budget.flops: 1000000000000.0" in text and text.count("seed:") == 1
    with pytest.raises(ValueError, match="no folder"):
        write_follow_up(project.root / "nowhere" / "x.yaml", load("tiny"), 1e12, 500, 64)
    with pytest.raises(ValueError, match="cannot be a sweep file"):
        write_follow_up(project.root / "sweeps" / "a b.yaml", load("tiny"), 1e12, 500, 64)
