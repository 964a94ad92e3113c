"""Other tools' SAEs, measured as a run was and placed beside it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from saescale.records.store import read_json


@pytest.fixture
def trained(project, saescale):
    project.sweep("one", (project.root / "sweeps" / "tiny.yaml").read_text()
                  .replace("[16, 32]", "32").replace("[4.0e8, 8.0e8]", "4.0e8").replace("[0, 1]", "0"))
    assert saescale("launch", "one")[0] == 0
    return next((project.store / "by-id").iterdir())


@pytest.fixture
def foreign(trained, project):
    """The same weights as SAELens writes those it trained."""
    folder = project.root / "theirs"
    shutil.copytree(trained, folder)
    cfg = read_json(folder / "cfg.json")
    del cfg["metadata"]["saescale"]
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


def test_the_same_weights_from_another_tool_measure_the_same_but_for_the_objective(trained, foreign, saescale):
    code, out, err = saescale("evaluate", foreign, "--like", trained.name, "--json")
    assert code == 0, err
    found, own = json.loads(out), read_json(trained / "result.json")["metrics"]
    for name in ("fvu", "mse", "l0", "ce_recovered", "ce_with_sae", "fvu_se"):
        assert found["metrics"][name] == pytest.approx(own[name], rel=1e-4)
    assert found["metrics"]["objective"] is None and found["format"] == "saelens" and found["like"] == trained.name


def test_it_is_placed_among_the_sweeps_figures(trained, foreign, project, saescale):
    code, out, _ = saescale("evaluate", foreign, "--like", trained.name)
    assert code == 0 and "ce_recovered" in out and "next: saescale fit one" in out
    for verb in ("collect", "fit", "figures"):
        assert saescale(verb, "one")[0] == 0
    assert (project.store / "one" / "report" / "figures" / "others.png").is_file()


def test_an_sae_of_another_width_or_hook_is_refused(trained, foreign, saescale):
    cfg = read_json(foreign / "cfg.json")
    cfg["metadata"]["hook_name"] = "blocks.0.hook_resid_post"
    (foreign / "cfg.json").write_text(json.dumps(cfg))
    code, _, err = saescale("evaluate", foreign, "--like", trained.name)
    assert code == 2 and "was trained on blocks.0.hook_resid_post" in err and err.count("\n") == 1
    weights = load_file(foreign / "sae_weights.safetensors")
    narrow = {"W_enc": weights["W_enc"][:64], "W_dec": weights["W_dec"][:, :64], "b_dec": weights["b_dec"][:64]}
    save_file({k: v.contiguous() for k, v in (weights | narrow).items()}, foreign / "sae_weights.safetensors")
    code, _, err = saescale("evaluate", foreign, "--like", trained.name)
    assert code == 2 and "width 64" in err
    assert torch.equal(weights["W_dec"], load_file(trained / "sae_weights.safetensors")["W_dec"])


@pytest.mark.usefixtures("trained")
def test_a_run_there_is_not_and_a_folder_without_an_sae_are_refused(tmp_path, saescale):
    code, _, err = saescale("evaluate", tmp_path, "--like", "nope")
    assert code == 2 and "no run" in err
