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
