import pytest

from saescale import config as conf
from saescale.campaign.compose import group_choices
from saescale.campaign.sweep import Override, cells, load

pytestmark = pytest.mark.usefixtures("project")
G = "grids: {g: {seed: 0}}"
MINIMAL = "base: [data=text_files, train=small]\nset: {data.path: '{documents}'}\ngrids: {g: {train.n_tokens: 51200, seed: 0}}\n"


def configs(*overrides, name="tiny"):
    return [c.config for c in cells(load(name, overrides))]


def refused(*overrides, name="tiny"):
    with pytest.raises(ValueError) as e:
        configs(*overrides, name=name)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_a_grid_is_the_product_of_its_axes():
    assert [(c.sae.n_latents, c.budget.flops, c.seed) for c in configs()] == [
        (n, flops, seed) for n in (16, 32) for flops in (4e8, 8e8) for seed in (0, 1)]


def test_an_override_replaces_its_axis():
    assert {c.sae.n_latents for c in configs("sae.n_latents=64")} == {64}
    assert len(configs("sae.n_latents=64")) == 4


@pytest.mark.parametrize("text", ["seed=3,4", "seed=range(3,5)", "seed=choice(3,4)"])
def test_an_override_of_several_values_is_an_axis(text):
    assert {c.seed for c in configs(text)} == {3, 4}


def test_an_override_of_what_is_no_axis_holds_in_every_cell():
    assert {c.train.lr for c in configs("train.lr=0.5")} == {0.5}


def test_a_group_override_picks_the_values_of_its_kind():
    kinds = {(c.sae.kind, c.sae.k, c.sae.sparsity_coeff) for c in configs("sae=relu_l1,topk")}
    assert kinds == {("relu_l1", None, 5.0), ("topk", 4, None)}


def test_a_budget_override_leaves_the_grids_with_another_horizon_alone(project):
    project.sweep("two", "grids:\n  a: {budget.flops: 1.0e9}\n  b: {train.n_tokens: 51200}\n")
    a, b = configs("budget.flops=2e9", name="two")
    assert (a.budget.flops, a.train.n_tokens, b.budget.flops, b.train.n_tokens) == (2e9, None, None, 51200)


def test_exponents_without_a_dot_are_numbers_in_the_file_and_on_the_command_line(project):
    project.sweep("e", MINIMAL.replace("train.n_tokens: 51200", "budget.flops: 1e15"))
    for overrides in ([], ["budget.flops=1e15"]):
        assert [c.budget.flops for c in configs(*overrides, name="e")] == [1e15]


@pytest.mark.parametrize("name", ["../tiny", "sweeps/tiny", "tiny.yaml", "/etc/passwd", "", "."])
def test_a_sweep_name_with_a_path_is_refused(name):
    assert "is not a sweep name" in refused(name=name) and ", tiny" in refused(name=name)


def test_an_unknown_sweep_is_refused_with_the_known_ones():
    said = refused(name="tinny")
    assert said.startswith("there is no sweep 'tinny'. Choose one of: concepts, concepts_words, demo")
    assert ", tiny" in said and said.endswith(", or add sweeps/tinny.yaml.")


def test_an_unknown_key_is_refused_with_the_nearest():
    assert "sae.n_latnts is not a known setting. Did you mean sae.n_latents?" in refused("sae.n_latnts=3")


def test_an_unknown_group_choice_is_refused_with_the_known_ones(project):
    assert refused("sae=grated") == f"sae=grated is not known. Choose one of: {', '.join(conf.KINDS)}."
    project.sweep("bad", MINIMAL.replace("train=small", "sae=grated"))
    assert "'sae=grated' is not known. Choose one of: sae=batchtopk, sae=gated, sae=jumprelu," in refused(name="bad")


@pytest.mark.parametrize("text", ["seed", "seed=interval(0,1)", "sae=glob(*)", "seed=nosuch(1)", "a=b=[", "seed=1,,2"])
def test_an_override_that_cannot_be_read_is_refused_in_one_sentence(text):
    assert f"the override {text!r} cannot be read" in refused(text)


@pytest.mark.parametrize("text", ["+seed=1", "++seed=1", "~seed", "lm@elsewhere=bundled"])
def test_adding_deleting_and_moving_keys_is_refused(text):
    assert "keys are fixed" in refused(text)


def test_an_override_given_twice_is_refused():
    assert "seed is given twice" in refused("seed=0", "seed=1")


def test_two_horizons_are_refused_in_overrides_and_in_a_grid(project):
    assert "two horizons given" in refused("budget.flops=1e9", "train.n_tokens=5120")
    project.sweep("bad", MINIMAL.replace("seed: 0", "budget.flops: 1e9"))
    assert "two horizons given in grid 'g'" in refused(name="bad")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_not_finite_is_refused(value):
    said = refused(f"train.lr={value}")
    assert "only finite numbers" in said and said.startswith("train.lr: ")


def test_lm_takes_a_folder():
    folder, path = load("tiny", ["lm=/some/folder"]).overrides
    assert (folder, path) == (Override("lm", ("folder",)), Override("lm.path", ("/some/folder",)))
    assert configs("lm=/some/folder")[0].lm.path == "/some/folder"


def test_overrides_of_the_science_get_a_folder_of_their_own_and_others_do_not():
    assert load("tiny").folder_name == load("tiny", ["cluster=local", "cluster.workers=3"]).folder_name == "tiny"
    names = [load("tiny", o).folder_name for o in (["seed=3"], ["seed=4"], ["seed=3", "cluster.workers=3"], ["train.lr=3"])]
    assert names[0] == names[2] and len(set(names)) == 3
    assert all(n.startswith("tiny+") and len(n) == len("tiny+") + 6 for n in names)


def test_the_order_of_overrides_does_not_move_the_folder():
    assert load("tiny", ["seed=3", "train.lr=1"]).folder_name == load("tiny", ["train.lr=1.0", "seed=3"]).folder_name


@pytest.mark.parametrize(("text", "said"), [
    ("grids: [", "cannot be read"), ("", "has no grids"), ("grids: {}", "has no grids"),
    ("grids: {g: }", "grids.g is not a mapping"),
    ("- a", "has no grids"), ("grids: {g: [1]}", "grids.g is not a mapping"), ("gird: 3\n" + G, "Did you mean grids?"),
    ("set: [a]\n" + G, "set is not a mapping"), ("set: {1: 2}\n" + G, "set is not a mapping"),
    ("base: lm=bundled\n" + G, "is not a list"), ("base: [lm]\n" + G, "lm' is not known"),
    ("base: [nope=1]\n" + G, "Groups are:"), ("around: 3\n" + G, "around is not a mapping"),
    ("by_kind: {topkk: {sae.k: 1}}\n" + G, "by_kind.topkk is not an SAE kind"),
    ("concepts: {grid: nope, scoring_tokens: 3}\n" + G, "grid's NAME one of: g"),
    ("concepts: {grid: g, scoring_tokens: 0}\n" + G, "N a whole number"), ("concepts: {grid: g, tokens: 3}\n" + G, "must be"),
    ("concepts: {grid: g, prevalence: 3}\n" + G, "prevalence: fixed or text"),
    ("concepts: {grid: g, frequencies: [0.1, 0.01]}\n" + G, "LOW below HIGH"),
    ("concepts: {grid: g, frequencies: 0.1}\n" + G, "LOW below HIGH"),
    ("concepts: {grid: g, inventories: words}\n" + G, "inventories: [NAME"), ("question: ${nope}\n" + G, "cannot be read"),
    ("question: [a, b]\n" + G, "question=['a', 'b'] is not a text"), ("set: {sae: {k: 4}}\n" + G, "Write set: {sae.k: 4}."),
    ("set: {sae: topk}\n" + G, "or base: [sae=CHOICE]"), ("set: {budget: [1]}\n" + G, "budget.KEY"),
    ("grids: {g: {seed: 0, sae: {k: 4}}}", "Write grids.g: {sae.k: 4}."),
    ("grids: {g: {seed: 0, sae: [topk, {k: 4}]}}", "Write grids.g: {sae.k: 4}.")])
def test_a_broken_sweep_file_is_refused_in_one_sentence_that_names_it(project, text, said):
    project.sweep("bad", text)
    assert said in refused(name="bad") and "sweeps/bad.yaml" in refused(name="bad")


def test_a_sweep_file_that_is_no_text_is_refused_by_its_name(project):
    (project.root / "sweeps" / "bad.yaml").write_bytes(b"\xff\xfe\x00g")
    assert "sweeps/bad.yaml cannot be read" in refused(name="bad")


def test_an_override_of_a_horizon_that_no_grid_gives_is_refused_instead_of_ignored():
    assert "every grid of sweeps/tiny.yaml gives budget.flops" in refused("train.n_tokens=5120")


def test_an_unknown_key_of_an_unknown_group_lists_the_group_above_alone():
    said = refused("cluster.jobb.memory=3G")
    assert "cluster.workers" in said and "sae.k" not in said


def test_conf_falls_back_to_the_one_that_ships():
    assert group_choices()["sae"] == list(conf.KINDS)
