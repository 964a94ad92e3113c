"""A study outside the checkout, and a notebook's way in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import analysis
import saescale as package
from saescale.campaign import folders, sweep
from saescale.sae import export

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def study(tmp_path, monkeypatch, saescale):
    code, out, _ = saescale("init", tmp_path / "my study")
    assert code == 0 and "next: cd" in out and "'" in out.splitlines()[-1]
    monkeypatch.chdir(tmp_path / "my study")
    return tmp_path / "my study"


def test_init_lays_down_a_sweep_that_plans_with_the_installed_settings(study, saescale):
    code, out, _ = saescale("plan", "first", "--json")
    assert code == 0 and len(json.loads(out)["runs"]) >= 9
    assert {p.name for p in study.iterdir()} == {"README.md", "conf", "sweeps", ".gitignore", "runs"}


@pytest.mark.usefixtures("study")
def test_the_sweeps_that_came_with_saescale_work_in_a_study():
    assert sweep.load("demo").name == "demo" and sweep.load("first").name == "first"


def test_a_file_of_the_study_stands_in_front_of_the_installed_one_and_the_others_stay(study):
    own = study / "conf" / "train" / "small.yaml"
    own.parent.mkdir()
    own.write_text(folders.files("conf")[Path("train/small.yaml")].read_text().replace("batch_tokens: 256", "batch_tokens: 128"))
    config = next(sweep.cells(sweep.load("first"))).config
    assert config.train.batch_tokens == 128 and config.eval.ce_tokens == 4096


def test_a_choice_of_the_studys_own_is_found_by_its_name(study):
    site = study / "conf" / "cluster" / "site.yaml"
    site.write_text(site.read_text().replace("partition: null", "partition: ours"))
    config = next(sweep.cells(sweep.load("first", ["cluster=site"]))).config
    assert config.cluster.kind == "slurm" and config.cluster.job.partition == "ours"


def test_a_change_of_the_studys_conf_makes_the_plan_anew(study):
    from saescale.campaign.plan import asked

    before = asked(sweep.load("first"))
    (study / "conf" / "eval").mkdir()
    (study / "conf" / "eval" / "default.yaml").write_text("n_tokens: 1024\nce_tokens: 512\n")
    assert asked(sweep.load("first")) != before


def test_init_writes_over_nothing(tmp_path, saescale):
    (tmp_path / "mine.txt").write_text("kept")
    code, _, err = saescale("init", tmp_path)
    assert code == 2 and "not empty" in err and [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_notebook_has_the_sae_the_table_the_laws_and_a_figure_of_a_sweep(project, saescale):
    for verb in ("launch", "collect", "fit"):
        assert saescale(verb, "tiny")[0] == 0
    table, fits = analysis.table("tiny"), analysis.fits("tiny")
    assert (table.state == "done").all() and fits["budgets"]
    run = table.run_id[0]
    sae, same = package.load_sae(run[-10:]), export.load(project.store / "by-id" / run)
    x = torch.randn(8, sae.d_in)
    assert torch.equal(sae.reconstruct(x), same.reconstruct(x))
    assert torch.equal(package.load_sae(project.store / "by-id" / run).W_dec, sae.W_dec)
    assert analysis.figure("loss_vs_compute", "tiny")._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(("asked", "said"), [
    (lambda: analysis.table("nope"), "has no sweep 'nope'"), (lambda: analysis.figure("nope", "tiny"), "has no sweep 'tiny'"),
    (lambda: package.load_sae("nope"), "no run"), (lambda: package.load_sae("."), "no exported SAE")])
@pytest.mark.usefixtures("project")
def test_what_is_not_there_is_said_in_one_sentence(asked, said):
    with pytest.raises(ValueError, match=said):
        asked()


def test_a_run_without_weights_is_no_sae_yet(project, saescale):
    saescale("launch", "tiny", "--limit", "1")
    run = next((project.store / "by-id").iterdir())
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        package.load_sae(run.name)


def test_importing_saescale_and_analysis_imports_no_torch():
    code = "import saescale, analysis, sys; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
