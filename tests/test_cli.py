import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from saescale.campaign.plan import make_plan
from saescale.campaign.sweep import load
from saescale.records import record
from saescale.records.store import Store, read_json, write_json

pytestmark = pytest.mark.usefixtures("project")


@pytest.mark.parametrize(("arguments", "said"), [
    (["plan", "tiny", "sae.n_latnts=3"], "Did you mean sae.n_latents?"),
    (["plan", "tiny", "sae.n_latents=many"], "wrong type"),
    (["plan", "tiny", "sae.k=64"], "sae.k=64 exceeds sae.n_latents=16"),
    (["plan", "tiny", "budget.flops=10"], "less than one step"),
    (["plan", "tiny", "budget.flops=1e9", "train.n_tokens=512"], "two horizons given"),
    (["plan", "tiny", "train.n_tokens=null", "budget.flops=null"], "two horizons given"),
    (["plan", "../tiny"], "is not a sweep name"),
    (["plan", "nope"], "synthetic, tiny, "),
    (["plan", "tiny", "sae=grated"], "Choose one of: batchtopk, gated, jumprelu, jumprelu_tanh, matryoshka, relu_l1, topk"),
    (["plan", "tiny", "lm=/no/such/folder"], "/no/such/folder does not exist"),
    (["plan", "tiny", "seed=interval(0,1)"], "cannot be read"),
    (["launch", "tiny", "+x=1"], "keys are fixed"),
    (["status", "tiny", "seed=0", "seed=1"], "given twice"),
    (["collect", "tiny"], "has no plan"),
    (["fit", "tiny"], "has no plan"),
    (["run", "/no/such/job"], "is not a job"),
    (["concepts", "tiny"], "names no concepts")])
def test_bad_input_is_one_sentence_on_stderr_and_exit_code_2(saescale, arguments, said):
    code, out, err = saescale(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("saescale: ") and err.count("\n") == 1 and said in err and "Traceback" not in err


def test_no_traceback_reaches_a_real_terminal():
    said = subprocess.run([sys.executable, "-m", "saescale.cli", "plan", "tiny", "sae.k=64"], capture_output=True, text=True)
    assert said.returncode == 2 and said.stderr.startswith("saescale: sae.k=64 exceeds") and said.stderr.count("\n") == 1


def test_a_store_that_cannot_be_written_is_refused_before_anything(saescale, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, out, err = saescale("launch", "tiny", "--store", tmp_path / "file" / "runs")
    assert (code, out) == (2, "") and "cannot be written" in err and (tmp_path / "file").read_text() == "mine"


def first_run(project):
    plan = make_plan(load("tiny"), Store(project.store))
    return plan.runs[0], Store(project.store).run_dir(plan.runs[0].run_id)


def test_a_run_directory_of_another_run_stops_with_the_differing_keys(saescale, project):
    run, folder = first_run(project)
    other = json.loads(json.dumps(run.science))
    other["train"]["lr"] = 0.5
    record.claim(folder, other, {})
    before = (folder / "config.json").read_bytes()
    code, _, err = saescale("launch", "tiny")
    assert code == 2 and "holds another run: train.lr: " in err and "0.5 on disk" in err and err.count("\n") == 1
    assert (folder / "config.json").read_bytes() == before


def test_a_truncated_record_stops_the_launch_and_is_kept(saescale, project):
    _, folder = first_run(project)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"schema": 1, "run_id')
    code, _, err = saescale("launch", "tiny")
    assert code == 2 and "result.json is damaged" in err and err.count("\n") == 1
    assert (folder / "result.json").read_text() == '{"schema": 1, "run_id'
    code, out, _ = saescale("status", "tiny")
    assert code == 3 and "damaged" in out
    assert f"launch will refuse: {folder / 'result.json'} is damaged" in saescale("plan", "tiny")[1]


def test_a_full_disk_is_named_with_its_file(saescale, monkeypatch):
    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("saescale.records.store.os.fsync", full)
    code, _, err = saescale("plan", "tiny")
    assert code == 2 and "None" not in err and err.endswith("No space left on device\n") and err.count("\n") == 1


def test_plan_shows_every_grid_point_its_exclusions_and_the_next_command(saescale):
    code, out, _ = saescale("plan", "tiny", "budget.flops=4e8,4e9")
    assert code == 0
    assert "6 runs, 0 done, 6 to run, 2 excluded" in out
    assert "sae.n_latents=16 budget.flops=4e+09: needs 0.16M tokens, one epoch has 0.11M" in out
    assert out.rstrip().endswith("next: saescale launch tiny budget.flops=4e8,4e9")


def test_the_next_command_names_the_store_it_was_given(saescale, tmp_path):
    _, out, _ = saescale("plan", "tiny", "seed=0", "--store", tmp_path / "else where")
    assert out.rstrip().endswith(f"next: saescale launch tiny seed=0 --store '{tmp_path / 'else where'}'")


def test_what_is_to_run_first_names_the_store_too(saescale, tmp_path):
    for verb in ("collect", "figures"):
        _, _, err = saescale(verb, "tiny", "seed=0", "--store", tmp_path / "other")
        assert f"Run `saescale launch tiny seed=0 --store {tmp_path / 'other'}` first" in err


def test_plan_as_json_is_the_plan_with_states_and_its_price(saescale, project):
    code, out, _ = saescale("plan", "tiny", "--json")
    said = json.loads(out)
    assert code == 0 and {r["state"] for r in said["runs"]} == {"new"} and said["price"]["activations_gb"] > 0
    assert read_json(project.store / "tiny" / "plan.json")["plan_hash"] == said["plan_hash"]


def test_json_has_null_where_a_number_is_missing(saescale):
    saescale("plan", "tiny")
    code, out, _ = saescale("collect", "tiny", "--json")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    rows = json.loads(out, parse_constant=refuse)
    assert code == 0 and len(rows) == 8 and rows[0]["fvu"] is None


def test_a_table_without_numbers_sends_to_the_state_of_the_runs_and_not_to_a_fit(saescale):
    saescale("plan", "tiny")
    assert saescale("collect", "tiny")[1].rstrip().endswith("next: saescale status tiny")


@pytest.mark.parametrize(("value", "shown"), [(999_936, "1M"), (999_400, "999k"), (999.7, "1k"), (512, "512"), (6.25e9, "6.25G")])
def test_a_number_that_rounds_up_to_the_next_unit_is_said_in_it(value, shown):
    from saescale.screen import number

    assert number(value) == shown


def test_status_counts_and_tells_by_its_exit_code(saescale, project):
    code, out, _ = saescale("status", "tiny")
    assert code == 4 and "tiny: 8 new" in out
    run, folder = first_run(project)
    write_json(folder / "status.json", {"state": "running", "tokens": 128, "n_tokens": 512})
    code, out, _ = saescale("status", "tiny")
    assert code == 3 and f"stopped  {run.run_id} 25%" in out and "tiny: 1 stopped, 7 new" in out


def test_plan_says_who_shares_a_trunk_and_what_memory_training_needs(saescale):
    _, out, _ = saescale("plan", "tiny", "cluster.memory_gb=7")
    assert "8 runs share 4 trunks\n" in out and "of 7.0 GB; 1 fleet, the biggest 4 trunks with" in out
    _, out, _ = saescale("plan", "tiny", "cluster.memory_gb=7", "--json")
    said = json.loads(out)
    assert said["memory"]["available_gb"] == 7 and said["memory"]["needed_gb"] > 0.5 and said["sharing"].startswith("8 runs")


@pytest.mark.parametrize(("override", "disk", "said"), [
    ("cluster.memory_gb=0.1", 1e12, "the harvest of weights needs about"),
    ("cluster.memory_gb=0.64", 1e12, "training needs about"), ("seed=0", 1e6, "GB of disk and"),
    ("cluster.memory_gb=0", 1e12, "cluster.memory_gb=0.0 is out of range")])
def test_what_cannot_fit_into_memory_or_disk_is_refused_before_anything(saescale, project, monkeypatch, override, disk, said):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=disk))
    code, _, err = saescale("launch", "tiny", override)
    assert code == 2 and said in err and err.count("\n") == 1
    assert not (project.store / "by-id").exists() and not (project.store / "jobs").exists()


def test_a_sweep_with_overrides_keeps_apart_from_the_plain_one(saescale, project):
    saescale("plan", "tiny")
    plain = (project.store / "tiny" / "plan.json").read_bytes()
    saescale("plan", "tiny", "sae=relu_l1", "seed=0,1")
    folders = sorted(p.name for p in project.store.iterdir() if p.name.startswith("tiny"))
    assert len(folders) == 2 and folders[1].startswith("tiny+")
    assert (project.store / "tiny" / "plan.json").read_bytes() == plain


@pytest.mark.parametrize(("verb", "shown"), [
    ("plan", "[KEY=VALUE]..."), ("latent", "[LATENT]..."), ("steer", "[LATENT|KEY=VALUE]...")])
def test_help_writes_what_may_be_left_out_in_one_pair_of_brackets(saescale, verb, shown):
    code, out, _ = saescale(verb, "--help")
    assert code == 0 and shown in out and "[[" not in out


def test_concepts_say_that_they_are_scored_here_and_not_on_slurm(saescale):
    assert "8 processes score on this machine, not on Slurm" in saescale("concepts", "tiny", "cluster=slurm")[1]
    assert "Slurm" not in saescale("concepts", "tiny")[1]


def test_help_imports_nothing_heavy():
    heavy = ("torch", "hydra", "pandas", "scipy", "numpy", "transformer_lens", "transformers", "matplotlib")
    code = (f"import sys; sys.argv = ['saescale', '--help']\nfrom saescale import cli\ntry: cli.main()\nexcept SystemExit: pass\n"
            f"print('LOADED', [m for m in {heavy} if m in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "LOADED []" in said.stdout and "plan" in said.stdout
