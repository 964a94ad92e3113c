"""The verbs that read latents, on real dictionaries of the bundled model, trained once for all tests here."""

import json
import shutil

import pandas as pd
import pytest
from pytest import MonkeyPatch

from saescale import cli
from saescale.records import concepts
from saescale.records.store import Store, read_json, write_json

SWEEP = """\
question: What are these latents?
base: [lm=bundled, data=text_files, sae=topk, train=small, cluster=inprocess]
set:
  data.path: {documents}
  data.batch_sequences: 8
  data.n_ctx: 64
  data.held_out_fraction: 0.2
  data.max_train_tokens: 20_000
  train.lr_warmup_tokens: 512
  eval.n_tokens: 4096
  eval.ce_tokens: 512
  train.n_tokens: 16384
  budget.min_steps: 10
by_kind:
  topk: {sae.k: 4}
grids:
  sizes:
    sae.n_latents: [32, 64]
    seed: 0
concepts: {grid: sizes, scoring_tokens: 4096}
"""


def row(run_id, n_latents, concept, latent, dictionary="trained", category="words"):
    return {"run_id": run_id, "dictionary": dictionary, "n_latents": n_latents, "n_alive": n_latents, "seed": 0,
            "category": category, "concept": concept, "n_name_tokens": 2, "count": 40, "frequency": 1e-3,
            "space_frequency": None, "ambiguous": False, "latent": latent, "theta": 0.5, "recall": 0.6, "precision": 0.6,
            "score": 0.5 + latent / 1000, "f1_natural": 0.4, "prompt_hit": pd.NA}


@pytest.fixture(scope="module")
def trained(small_documents, tmp_path_factory):
    """A project's folder with runs/: two dictionaries, and two concepts scored by hand."""
    root = tmp_path_factory.mktemp("latents")
    (root / "sweeps").mkdir()
    (root / "sweeps" / "pair.yaml").write_text(SWEEP.replace("{documents}", str(small_documents)))
    with MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["saescale", "launch", "pair"])
        with pytest.raises(SystemExit) as end:
            cli.app()
    assert end.value.code == 0
    plan = read_json(root / "runs" / "pair" / "plan.json")
    runs = {r["science"]["sae"]["n_latents"]: r["run_id"] for r in plan["runs"]}
    rows = [row(runs[n], n, c, latent, dictionary) for n in (32, 64) for dictionary in ("trained", "untrained")
            for c, latent in (("import", 5), ("message", 9))]
    concepts.write(root / "runs" / "pair", {"definition": {}, "warnings": []}, pd.DataFrame(rows))
    return root, runs


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A copy of it to work in, and the run ids by size."""
    shutil.copytree(trained[0], tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project", trained[1]


def test_a_latent_has_a_card_in_the_terminal_on_disk_and_on_a_page(saescale, project):
    root, runs = project
    code, out, err = saescale("latent", runs[64][-6:], "3", "17")
    assert (code, err) == (0, "") and "latent 3" in out and "latent 17" in out and "raises" in out
    card = read_json(root / "runs" / "pair" / "latents" / runs[64] / "17.json")
    assert card["n_latents"] == 64 and card["text"]["split"] == "held_out" and card["concept"] is None
    assert 4096 <= card["text"]["n_tokens"] < 4096 + 8 * 63
    assert [other["run_id"] for other in card["neighbours"]] == [runs[32]]
    page = (root / "runs" / "pair" / "latents" / "index.html").read_text()
    assert "latent 3<" in page and "latent 17<" in page and "next: saescale steer" in out


def test_a_card_agrees_with_the_counts_of_the_record(saescale, project):
    import numpy as np

    root, runs = project
    fired = np.load(root / "runs" / "by-id" / runs[64] / "fire_counts.npy")
    _, out, _ = saescale("latent", runs[64], *map(str, range(8)), "--json")
    cards = json.loads(out)
    # the record counts at the training scale, a card on raw activations: the same latents up to rounding
    assert all(abs(card["n_fired"] - fired[card["latent"]]) <= 2 for card in cards) and fired[:8].sum() > 0


def test_live_activations_give_the_very_same_card(saescale, project):
    root, runs = project
    _, harvested, _ = saescale("latent", runs[64], "3", "--json")
    shutil.rmtree(root / "runs" / "activations")  # as gc may; scale.json is not needed for what is exported
    _, live, _ = saescale("latent", runs[64], "3", "--json")
    assert json.loads(live) == json.loads(harvested)


def test_a_concept_leads_to_its_best_latent_and_the_card_says_its_score(saescale, project):
    _, runs = project
    code, out, _ = saescale("latent", runs[64], "--concept", "message", "--json")
    [card] = json.loads(out)
    assert code == 0 and card["latent"] == 9
    assert card["concept"]["category"] == "words" and card["concept"]["score"] == pytest.approx(0.509)


def test_a_dead_latent_is_said_to_be_silent(saescale, project):
    import safetensors.torch

    root, runs = project
    path = root / "runs" / "by-id" / runs[64] / "sae_weights.safetensors"
    weights = safetensors.torch.load_file(path)
    weights["b_enc"][7] = -1e6
    safetensors.torch.save_file(weights, path)
    code, out, _ = saescale("latent", runs[64], "7")
    assert code == 0 and "silent: fires on 0 of" in out and "never fired on this text" in out


@pytest.mark.parametrize(("arguments", "said"), [
    (["RUN", "64"], "numbered 0 to 63"),
    (["RUN", "x7"], "'x7' is no latent"),
    (["RUN"], "no latent was named"),
    (["RUN", "1", "--text", "all"], "choose one of held_out, train"),
    (["RUN", "1", "--tokens", "0"], "at least 1"),
    (["RUN", "1", "--sweep", "other"], "part of: pair"),
    (["RUN", "--concept", "zebra"], "Its best are: message, import"),
    (["nothing", "1"], "no run of")])
def test_bad_input_is_one_sentence_and_exit_code_2(saescale, project, arguments, said):
    code, out, err = saescale("latent", *[project[1][64] if a == "RUN" else a for a in arguments])
    assert code == 2 and out == "" and err.startswith("saescale: ") and err.count("\n") == 1 and said in err


def test_a_run_that_is_not_finished_is_refused(saescale, project):
    root, runs = project
    (root / "runs" / "by-id" / runs[64] / "result.json").unlink()
    code, _, err = saescale("latent", runs[64], "1")
    assert code == 2 and "is not finished" in err and "saescale launch" in err


def edit_config(root, run_id, change):
    path = Store(root / "runs").run_dir(run_id) / "config.json"
    config = read_json(path)
    change(config)
    write_json(path, config)


def test_a_missing_model_folder_is_one_sentence(saescale, project):
    root, runs = project
    edit_config(root, runs[64], lambda config: config["execution"].update(lm_path="/no/such/model"))
    code, _, err = saescale("latent", runs[64], "1")
    assert code == 2 and "/no/such/model does not exist" in err and err.count("\n") == 1


def test_a_model_that_changed_since_is_refused(saescale, project, tmp_path):
    root, runs = project
    folder = tmp_path / "model"
    shutil.copytree(read_json(Store(root / "runs").run_dir(runs[64]) / "config.json")["execution"]["lm_path"], folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    edit_config(root, runs[64], lambda config: config["execution"].update(lm_path=str(folder)))
    code, _, err = saescale("latent", runs[64], "1")
    assert code == 2 and "holds another model" in err


def test_a_run_on_synthetic_activations_has_no_text(saescale, project):
    root, _ = project
    (root / "sweeps" / "drawn.yaml").write_text(
        "question: No text?\nbase: [activations=synthetic, sae=topk, train=small, cluster=inprocess]\n"
        "set: {activations.n_tokens: 20000, activations.n_features: 64, activations.d_in: 16, activations.mean_l0: 4,\n"
        "      train.n_tokens: 8192, eval.n_tokens: 2048, train.lr_warmup_tokens: 512, budget.min_steps: 10}\n"
        "by_kind: {topk: {sae.k: 4}}\ngrids: {one: {sae.n_latents: [16], seed: 0}}\n")
    code, _, err = saescale("launch", "drawn")
    assert code == 0, err
    run = read_json(root / "runs" / "drawn" / "plan.json")["runs"][0]["run_id"]
    code, _, err = saescale("latent", run, "1")
    assert code == 2 and "synthetic activations" in err and err.count("\n") == 1


PROMPT = "def close(self):\n    self."


def test_steering_writes_one_text_per_scale_after_the_models_own(saescale, project):
    root, runs = project
    code, out, err = saescale("steer", runs[64], "3", "--scale", "-10..10/5", "--prompt", PROMPT, "--tokens-out", "4")
    assert (code, err) == (0, "") and "untouched" in out and "x -10" in out and "x 10" in out
    found = read_json(root / "runs" / "pair" / "steering" / runs[64] / "3.json")
    assert [text["scale"] for text in found["texts"]] == [None, -10, -5, 0, 5, 10]
    assert found["max"] == read_json(root / "runs" / "pair" / "latents" / runs[64] / "3.json")["max"] > 0
    assert "saescale latent" in out


def test_steering_by_a_concept_says_what_becomes_of_its_log_probability(saescale, project):
    _, runs = project
    code, out, _ = saescale("steer", runs[64], "--concept", "message", "--scale", "-2,0,2", "--json")
    found = json.loads(out)
    assert code == 0 and found["latent"] == 9 and found["texts"] == []
    own, random = found["concept"]["trained"], found["concept"]["random"]
    assert own["relative_size"] == pytest.approx(random["relative_size"], abs=2e-4)
    assert own["first"] != random["first"] and len(own["first"]) == len(own["second"]) == 3
    assert abs(own["first"][1]) < abs(own["first"][2])  # taking a latent away does less than twice its maximum


def test_steering_a_sweep_has_every_size_arm_and_concept(saescale, project):
    root, runs = project
    code, out, err = saescale("steer", "pair", "--concepts", "2", "--scale", "3")
    assert (code, err) == (0, "") and "saescale figures pair" in out
    found = read_json(root / "runs" / "pair" / "steering.json")
    arms = {(row["n_latents"], row["arm"], row["concept"]): row["latent"] for row in found["rows"]}
    assert len(found["rows"]) == len(arms) == 2 * 4 * 2
    assert arms[64, "trained", "message"] == 9 and arms[64, "other", "message"] == 5


def test_splitting_compares_the_sizes_beside_the_larger_one_untrained(saescale, project):
    root, runs = project
    code, out, err = saescale("splitting", "pair")
    assert (code, err) == (0, "") and "untrained control" in out
    found = read_json(root / "runs" / "pair" / "splitting.json")
    assert [(p["small"], p["large"], p["trained"]) for p in found["pairs"]] == [(32, 64, True), (32, 64, False)]
    trained, untrained = found["pairs"]
    assert trained["n_tokens"] >= 4096 and trained["n_small_alive"] == untrained["n_small_alive"] <= 32
    assert trained["mutual"] > untrained["mutual"]  # they began with the same directions; the control did not


@pytest.mark.parametrize(("arguments", "said"), [
    (["steer", "RUN", "3", "--scale", "ten", "--prompt", "x"], "is no list of scales"),
    (["steer", "RUN", "3"], "nothing to steer"),
    (["steer", "RUN", "3", "4", "--prompt", "x"], "2 latents were named"),
    (["steer", "RUN", "3", "--prompt", ""], "has no token of this model's vocabulary"),
    (["steer", "RUN", "3", "--prompt", "x", "--tokens-out", "400"], "give a shorter prompt"),
    (["steer", "RUN", "3", "--prompt", "x", "--tokens-out", "0"], "1 token or more"),
    (["steer", "RUN", "99", "--prompt", "x"], "numbered 0 to 63"),
    (["steer", "pair", "--concepts", "1"], "give 2 or more"),
    (["steer", "nothing", "--concepts", "4"], "there is no sweep"),
    (["splitting", "pair", "--tokens", "0"], "at least 1")])
def test_steering_and_splitting_refuse_bad_input_in_one_sentence(saescale, project, arguments, said):
    code, out, err = saescale(*[project[1][64] if a == "RUN" else a for a in arguments])
    assert code == 2 and out == "" and err.startswith("saescale: ") and err.count("\n") == 1 and said in err


def test_a_sweep_with_one_size_left_is_not_compared(saescale, project):
    root, runs = project
    (root / "runs" / "by-id" / runs[32] / "result.json").unlink()
    code, _, err = saescale("splitting", "pair")
    assert code == 2 and "1 finished dictionary sizes" in err and "two or more are needed" in err


def test_a_silent_latent_cannot_be_steered_by_its_maximum(saescale, project):
    root, runs = project
    saescale("latent", runs[64], "3")
    path = root / "runs" / "pair" / "latents" / runs[64] / "3.json"
    write_json(path, read_json(path) | {"state": "silent", "max": 0.0})
    code, _, err = saescale("steer", runs[64], "3", "--prompt", "x")
    assert code == 2 and "never fired on its text" in err and "--text train" in err


def test_a_scored_sweep_gets_the_cards_of_its_best_concepts(project):
    from saescale.looking import show_best

    class Silent:
        def stage(self, *_):
            pass

    root, runs = project
    made = show_best(Store(root / "runs"), "pair", Silent())
    assert [(card["run_id"], card["latent"], card["concept"]["concept"]) for card in made] == [
        (runs[64], 9, "message"), (runs[64], 5, "import")]
