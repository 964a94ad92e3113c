"""Studies as they are published, and predictions held against what was trained since."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis import fit, verdict
from saescale import published, screen
from saescale.records.store import write_json
from saescale.study import Study


def test_a_published_study_gives_its_laws_and_figures_again_without_the_store(saescale, eight):
    for verb in ("collect", "fit", "figures"):
        assert saescale(verb, "tiny")[0] == 0
    code, out, _ = saescale("publish", "tiny", "--to", "results/tiny", "--command", "saescale launch tiny lm=/home/me/model")
    assert code == 0 and out.rstrip().endswith("next: saescale figures results/tiny")
    folder = eight.root / "results" / "tiny"
    about = json.loads((folder / "study.json").read_text())
    assert (about["folder"], about["runs"]) == ("tiny", {"done": 8})
    assert about["commands"] == ["saescale launch tiny lm=/path/to/model"]
    before = {p.name: p.read_bytes() for p in (folder / "figures").iterdir()}
    assert before.keys() == {p.name for p in (eight.store / "tiny/report/figures").glob("*.[sp]*g")}
    eight.store.rename(eight.root / "gone")
    assert saescale("fit", "results/tiny")[0] == 0 and saescale("figures", "results/tiny")[0] == 0
    assert {p.name: p.read_bytes() for p in (folder / "figures").iterdir()} == before
    table = pd.read_csv(folder / "table.csv")
    table.loc[0, "objective"] *= 1.001
    table.to_csv(folder / "table.csv", index=False)
    code, _, err = saescale("fit", "results/tiny")
    assert code == 2 and "is not what its tables give" in err


def test_what_follows_a_prediction_of_a_published_study_is_a_command_it_takes(saescale, project, monkeypatch):
    write_json(project.root / "results" / "x" / "study.json", {"sweep": "tiny"})
    monkeypatch.setattr("saescale.study.Study.presence_law", lambda *_: ({}, "a page"))
    code, out, _ = saescale("predict", "results/x", "--frequency", "1e-9")
    assert code == 0 and out.rstrip().endswith("next: saescale figures results/x")
    code, _, err = saescale("predict", "results/x", "--flops", "1e9", "--as-sweep", "sweeps/next.yaml")
    assert code == 2 and "name a sweep with --like" in err


def test_what_publishing_writes_does_not_count_as_an_edit_of_the_tree(saescale, eight, monkeypatch):
    folder = eight.root / "results" / "tiny"
    monkeypatch.setattr(published, "commit", lambda: {"commit": "c", "edited": folder.exists()})
    saescale("collect", "tiny")
    saescale("fit", "tiny")
    assert saescale("publish", "tiny")[0] == 0
    assert json.loads((folder / "study.json").read_text())["edited"] is False


@pytest.mark.parametrize("verb", ["figures", "report", "publish"])
def test_fits_that_hold_no_laws_send_back_to_fit(saescale, eight, verb):
    for earlier in ("collect", "fit", "figures"):
        saescale(earlier, "tiny")
    (eight.store / "tiny" / "fits.json").write_text("{}")
    code, _, err = saescale(verb, "tiny")
    assert code == 2 and "fits.json holds no laws. Run `saescale fit tiny` first" in err and err.count("\n") == 1


def test_a_study_does_not_take_the_folder_of_another(saescale, eight):
    folder = eight.root / "results" / "other"
    folder.mkdir(parents=True)
    write_json(folder / "study.json", {"sweep": "else"})
    code, _, err = saescale("publish", "tiny", "--to", "results/other")
    assert code == 2 and "holds the study of else" in err and [p.name for p in folder.iterdir()] == ["study.json"]


def test_a_study_does_not_overwrite_a_file_of_a_folder_that_is_no_study(saescale, eight):
    for verb in ("collect", "fit"):
        assert saescale(verb, "tiny")[0] == 0
    (eight.root / "table.csv").write_text("mine")
    code, _, err = saescale("publish", "tiny", "--to", ".")
    assert code == 2 and "table.csv is there" in err and err.count("\n") == 1
    assert (eight.root / "table.csv").read_text() == "mine" and not (eight.root / "study.json").exists()
    assert saescale("publish", "tiny", "--to", "new")[0] == saescale("publish", "tiny", "--to", "new")[0] == 0


@pytest.mark.parametrize(("there", "said"), [
    ({"sweep": "tiny", "folder": "tiny"}, "holds the study of tiny, not of tiny+"),
    ({"sweep": "tiny"}, "Run `saescale collect tiny sae=relu_l1` first")])  # of an older version: may be published again
def test_a_sweep_with_overrides_does_not_take_the_folder_of_the_plain_one(saescale, eight, there, said):
    folder = eight.root / "results" / "tiny"
    folder.mkdir(parents=True)
    write_json(folder / "study.json", there)
    saescale("plan", "tiny", "sae=relu_l1")
    code, _, err = saescale("publish", "tiny", "sae=relu_l1", "--to", "results/tiny")
    assert code == 2 and said in err and json.loads((folder / "study.json").read_text()) == there


def test_fits_of_another_table_are_not_published(saescale, eight):
    saescale("collect", "tiny")
    study = Study.of("tiny", [], eight.store)
    write_json(study.path("fits.json"), {"inputs": study.inputs_hash(), "firing": {}})
    next((eight.store / "by-id").glob("*/result.json")).unlink()
    saescale("collect", "tiny")
    code, _, err = saescale("publish", "tiny")
    assert code == 2 and "Run `saescale fit tiny` first" in err and not (eight.root / "results").exists()


@pytest.mark.parametrize(("old", "new", "where"), [
    ({"a": [1.0, 2.0]}, {"a": [1.0, 2.00001]}, ["a[1]"]),
    ({"a": 1.0}, {"a": 1.0 + 1e-9}, []),
    ({"a": None}, {"a": 0.0}, ["a"]),
    ({"versions": {"numpy": "1"}, "b": {"versions": 1}}, {"versions": {"numpy": "2"}, "b": {"versions": 2}}, ["b.versions"]),
    ({"a": [1]}, {"a": [1, 2]}, ["a"])])  # fmt: skip
def test_fits_differ_where_a_number_moved_by_more_than_rounding(old, new, where):
    assert [path for path, *_ in published.differences(old, new)] == where


def test_a_budget_is_predicted_before_it_is_trained_and_verified_after(saescale, six):
    records = (six.store / "by-id").glob("*/result.json")
    held = [p for p in records if json.loads(p.read_text())["flops"]["flops_dense"] > 1.2e9]
    trained = [(p, p.read_text()) for p in held]
    for path in held:
        path.unlink()
    saescale("collect", "tiny")
    command = ("predict", "tiny", "--law", "nd", "--flops", "1.6e9", "--draws", 100, "--json", "said.json")
    assert saescale(*command)[0] == 0
    said = json.loads((six.root / "said.json").read_text())
    assert [c["N"] for c in said["cells"]] == [16, 32, 64, 128]  # 8 latents would need more tokens than there are
    code, _, err = saescale("verify", "said.json", "tiny")
    assert code == 2 and "No run at 1.6e+09 FLOPs is done" in err
    for path, text in trained:
        path.write_text(text)
    saescale("collect", "tiny")
    code, out, _ = saescale("verify", "said.json", "tiny", "--json", "verdict.json")
    found = json.loads((six.root / "verdict.json").read_text())
    assert code == 0 and len(found["cells"]) == 4 and all(abs(c["error_percent"]) < 15 for c in found["cells"])
    assert "loss at 64 latents" in out and {c["held"] for c in found["cells"]} <= {True, False}


def test_an_interval_holds_only_what_lies_inside_it():
    said = {"estimate": 1.0, "lo": 0.9, "hi": 1.2}
    assert verdict.record(said, 1.15)["held"] is True and verdict.record(said, 1.25)["held"] is False
    assert verdict.record(said, 1.25)["error_percent"] == pytest.approx(-20)
    assert verdict.record(said | {"lo": None}, 1.0)["held"] is None and verdict.record(said, None)["seen"] is None


def test_an_optimum_is_held_to_a_prediction_as_often_as_both_intervals_say_together():
    """The law places it to 1 %, the valley that was trained to 3 %: alone, the law's interval would hold half of them."""
    rng, own, other = np.random.default_rng(0), 0.01, 0.03
    found = []
    for predicted, seen in np.exp(rng.normal(0, (own, other), (400, 2))):
        said, noise = ([value * np.exp(side * 1.96 * sd) for side in (-1, 1)] for value, sd in ((predicted, own), (seen, other)))
        found.append(verdict.record({"estimate": predicted, "lo": said[0], "hi": said[1]}, seen, noise))
    assert 0.92 <= np.mean([one["held"] for one in found]) <= 0.98
    assert {len(one["seen_interval"]) for one in found} == {2}


def test_how_well_an_optimum_was_seen_is_printed_and_costs_the_verdict_no_room(capsys):
    said = {"estimate": 1.462e6, "lo": 1.441e6, "hi": 1.484e6}
    screen.show_verdict([("best n_tokens", verdict.record(said, 1.62e6, [1.567e6, 1.675e6])),
                         ("loss at 16384 latents, 5.09e+05 tokens", verdict.record(said, 1.45e6))])
    out = capsys.readouterr().out
    assert "seen to ±3.3 %" in out and "no" in out.splitlines()[1] and "…" not in out


def test_the_rate_that_was_seen_has_the_noise_of_its_seeds():
    rng = np.random.default_rng(0)
    rates = pd.DataFrame([{"N": 64.0, "D": 1e4, "lr": lr, "seed": seed, "loss": np.exp(0.2 * np.log(lr / 3e-3) ** 2 + e)}
                          for lr in (1e-3, 2e-3, 4e-3, 8e-3) for seed, e in enumerate(rng.normal(0, 0.02, 3))])
    said = {"N": 64.0, "D": 1e4, "lr": {"estimate": 3.1e-3, "lo": 3.09e-3, "hi": 3.11e-3}}
    one = verdict._rate(said, rates)
    assert one["seen_interval"][0] < one["seen"] < one["seen_interval"][1] and one["held"]
    assert verdict._rate(said, rates[rates["seed"] == 0])["seen_interval"] == [None, None]


def test_what_was_not_predicted_is_neither_held_nor_in_error():
    none = {"estimate": None, "lo": None, "hi": None}
    assert verdict.record(none, 2.0) == {"predicted": none, "seen": 2.0, "error_percent": None, "held": None}
    screen.show_verdict([("best lr", verdict.record(none, 2.0))])


def test_a_law_without_intervals_foretells_losses_without_bounds():
    rng = np.random.default_rng(0)
    n, d = (grid.ravel() for grid in np.meshgrid(2.0 ** np.arange(4, 10), 2.0 ** np.arange(10, 14)))
    table = pd.DataFrame({"N": n, "D": d, "loss": (1 + n**-0.5 + 9 * d**-0.4) * np.exp(rng.normal(0, 1e-3, len(n)))})
    (said,) = verdict.foretold(fit("nd", table, draws=0), [(1024.0, 16384.0)])
    assert said["lo"] is None and said["hi"] is None and said["estimate"] == pytest.approx(1.22, rel=0.05)


def test_verify_holds_the_rates_that_the_sweep_itself_foretold(saescale, six):
    saescale("collect", "tiny")
    rate = {"N": 64.0, "D": 16128.0, "lr": {"estimate": 1e-2, "lo": None, "hi": None}}
    write_json(six.root / "said.json", {"at": {"C": 1.6e9}, "N": {"estimate": 32.0}, "rates": [rate]})
    assert saescale("verify", "said.json", "tiny", "--json", "verdict.json")[0] == 0
    (rate,) = json.loads((six.root / "verdict.json").read_text())["rates"]
    assert rate["predicted"]["estimate"] == 1e-2 and rate["seen"] is None


def test_the_best_rate_is_the_vertex_of_a_parabola_and_none_at_an_edge():
    rates = np.array([1e-3, 2e-3, 4e-3, 8e-3])
    losses = np.exp(0.3 * np.log(rates / 3e-3) ** 2)
    assert math.isclose(verdict.best_rate(rates[::-1], losses[::-1]), 3e-3, rel_tol=1e-6)
    assert verdict.best_rate(rates, rates) is None
