import json
import shutil
import subprocess
import sys

import pytest

from saescale.activations.folder import BUNDLED
from saescale.campaign.exponent import no_exponent
from saescale.campaign.plan import far_from_optimum, make_plan, save, why_excluded
from saescale.campaign.sweep import cells, load
from saescale.records.store import Store
from saescale.science import horizon_tokens
from saescale.study import Study

GRIDS = """\
base: [data=text_files, train=small]
set: {data.path: '{documents}', sae.k: 4, data.batch_sequences: 8, data.n_ctx: 64}
grids:
"""


def planned(project, *overrides, name="tiny"):
    return make_plan(load(name, overrides), Store(project.store))


def test_tokens_meet_their_budget_within_one_percent(project):
    plan = planned(project)
    assert len(plan.runs) == 8
    for r in plan.runs:
        t = r.science["train"]["n_tokens"]
        assert abs(12 * 128 * r.science["sae"]["n_latents"] * t / r.target_flops - 1) <= 0.01
        assert t % 256 == 0 and r.steps == t // 256


def test_a_point_that_misses_its_budget_is_excluded_with_its_error(project):
    flops = 12 * 128 * 16 * 256 * 20.4  # 20 steps miss it by 2 %
    plan = planned(project, f"budget.flops={flops},4e8")
    assert "misses its budget by -2.0%" in next(e["reason"] for e in plan.excluded if e["cell"]["sae.n_latents"] == 16)


@pytest.mark.parametrize(("flops", "reason"), [
    ("4e9", "one epoch has 0.11M"), ("5e7", "steps, fewer than budget.min_steps=10"), ("10", "less than one step")])
def test_a_point_that_cannot_be_trained_is_excluded_with_the_reason(project, flops, reason):
    plan = planned(project, f"budget.flops={flops},4e8", "sae.n_latents=16", "seed=0")
    assert [e["cell"]["budget.flops"] for e in plan.excluded] == [float(flops)]
    assert reason in plan.excluded[0]["reason"] and len(plan.runs) == 1


def test_a_run_shorter_than_its_warmups_is_excluded(project):
    with pytest.raises(ValueError, match="less than budget.min_warmups=5 times the warm-up of 12800"):
        planned(project, "train.lr_warmup_tokens=12800")


def test_an_emptied_grid_is_refused_with_the_first_reason(project):
    with pytest.raises(ValueError, match="grid 'isoflop' of sweep 'tiny' has no point that can be trained: all 4 are excluded"):
        planned(project, "budget.flops=10")


def test_ids_and_plan_hash_do_not_depend_on_the_order_of_the_grid(project):
    text = (project.root / "sweeps/tiny.yaml").read_text()
    for there, turned in (("[16, 32]", "[32, 16]"), ("[4.0e8, 8.0e8]", "[8.0e8, 4.0e8]"), ("seed: [0, 1]", "seed: [1, 0]")):
        text = text.replace(there, turned)
    project.sweep("turned", text)
    a, b = planned(project, "budget.min_steps=40"), planned(project, "budget.min_steps=40", name="turned")
    assert {r.run_id for r in a.runs} == {r.run_id for r in b.runs} and [r.run_id for r in a.runs] != [r.run_id for r in b.runs]
    assert a.excluded and a.plan_hash == b.plan_hash


def test_ids_do_not_depend_on_where_the_folders_are(project, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(project.documents)
    a, b = planned(project, "seed=0"), planned(project, "seed=0", f"data.path={elsewhere}", "cluster.threads=2")
    assert [r.run_id for r in a.runs] == [r.run_id for r in b.runs]


def test_another_document_gives_other_runs(project, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for f in project.documents.iterdir():
        (copy / f.name).write_text(f.read_text())
    (copy / "more.txt").write_text("one more document " * 50)
    a, b = planned(project, "seed=0"), planned(project, "seed=0", f"data.path={copy}")
    assert not {r.run_id for r in a.runs} & {r.run_id for r in b.runs}


def test_the_same_run_in_two_grids_is_one_run(project):
    project.sweep("two", GRIDS + "  a: {sae.n_latents: [16, 32], train.n_tokens: 51200}\n"
                                 "  b: {sae.n_latents: 16, train.n_tokens: 51200}\n")
    plan = planned(project, name="two")
    assert [(r.science["sae"]["n_latents"], r.grids) for r in plan.runs] == [(16, ("a", "b")), (32, ("a",))]


def test_budgets_of_one_size_and_seed_share_a_trunk(project):
    plan = planned(project)
    assert len({r.trunk_id for r in plan.runs}) == 4
    assert len({(r.science["sae"]["n_latents"], r.science["train"]["seed"]) for r in plan.runs}) == 4


def test_the_plan_file_is_the_same_every_time(project):
    store = Store(project.store)
    first = save(planned(project), store).read_bytes()
    assert save(planned(project), store).read_bytes() == first
    said = json.loads(first)
    assert said["sweep"] == "tiny" and len(said["runs"]) == 8 and said["runs"][0]["science"]["lm"]["d_in"] == 128


@pytest.mark.parametrize(("overrides", "said"), [
    (["lm=/no/such/folder"], "does not exist"), (["lm=folder"], "lm.path is missing"),
    (["data.path=/no"], "is not a folder"),
    (["data.n_ctx=4096"], "exceeds the 256 positions"), (["lm.hook_name=blocks.9.hook_resid_post"], "layers 0 to"),
    (["data.batch_sequences=100000"], "tokens, less than one forward batch"),
    (["data.path=???"], "data.path is missing")])
def test_what_cannot_be_looked_up_is_refused_in_one_sentence(project, overrides, said):
    with pytest.raises(ValueError) as e:
        planned(project, *overrides)
    assert said in str(e.value) and "\n" not in str(e.value)


def test_a_folder_that_is_no_language_model_is_refused_with_what_it_lacks(project, tmp_path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"lacks tokenizer.json, \*.safetensors"):
        planned(project, f"lm={tmp_path / 'lm'}")


@pytest.mark.parametrize(("name", "damage"), [
    ("model.safetensors", lambda raw: raw[:-9]), ("model.safetensors", lambda raw: raw[:5]), ("tokenizer.json", lambda _: b"{}")])
def test_a_model_that_is_cut_off_is_refused_by_the_plan_with_the_name_of_the_file(project, tmp_path, name, damage):
    folder = shutil.copytree(BUNDLED, tmp_path / "lm")
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ValueError, match=name) as e:
        planned(project, f"lm={folder}")
    assert "\n" not in str(e.value) and "save_pretrained" in str(e.value)


def test_a_sweep_whose_budgets_keep_too_few_sizes_is_warned_that_no_exponent_can_come_out(project):
    (said,) = no_exponent(planned(project, "sae.n_latents=16,32,64"))
    assert "no exponent can come out" in said and "keep 3 at 4e+08, 3 at 8e+08" in said and "sae.n_latents" in said
    wide = ("sae.n_latents=16,32,64", "budget.flops=2e8,4e8,8e8", "budget.min_steps=1", "budget.min_warmups=0", "seed=0")
    assert no_exponent(planned(project, *wide)) == []
    layers = "lm.hook_name=blocks.0.hook_resid_post,blocks.1.hook_resid_post"
    (said,) = no_exponent(planned(project, *wide[:1], "budget.flops=2e8,4e8,8e9", *wide[2:], layers))
    assert "keep 3 at 2e+08, 3 at 4e+08, 1 at 8e+09" in said  # of each layer
    assert no_exponent(planned(project, "budget.flops=8e8")) == []  # one budget tests a prediction


@pytest.mark.parametrize(("name", "d_in", "hooks"), [("gpt2_small", 768, 1), ("pythia_70m", 512, 3)])
def test_sweeps_of_models_that_are_not_here_keep_five_sizes_around_the_expected_optimum_of_three_budgets(name, d_in, hooks):
    sweep, kept = load(name), {}
    for cell in cells(sweep):
        c = cell.config
        train = {"n_tokens": horizon_tokens(c, d_in), "batch_tokens": c.train.batch_tokens,
                 "lr_warmup_tokens": c.train.lr_warmup_tokens}
        science = {"lm": {"d_in": d_in}, "sae": {"n_latents": c.sae.n_latents}, "train": train}
        if not far_from_optimum(c, sweep.around) and not why_excluded(c, science, c.data.max_train_tokens):
            kept.setdefault((c.lm.hook_name, c.budget.flops), []).append(c.sae.n_latents)
    expected = [sweep.around["n_latents"] * (flops / sweep.around["flops"]) ** sweep.around["power"] for _, flops in kept]
    assert len(kept) == 3 * hooks and all(len(sizes) >= 5 for sizes in kept.values())
    assert all(sizes[1] <= n <= sizes[-2] for n, sizes in zip(expected, kept.values(), strict=True))


@pytest.mark.parametrize("verb", ["plan", "status", "fit"])
def test_planning_status_and_fitting_import_no_torch(project, verb):
    planned(project)
    save(planned(project), Store(project.store))
    if verb == "fit":
        Study.of("tiny", [], project.store).collect()
    code = (f"import sys; sys.argv = ['saescale', {verb!r}, 'tiny']\nfrom saescale import cli\n"
            "try: cli.main()\nexcept SystemExit: pass\n"
            "print('LOADED', [m for m in ('torch', 'transformers', 'transformer_lens') if m in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "LOADED []" in said.stdout, said.stdout + said.stderr
