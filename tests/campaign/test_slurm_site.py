import pytest

from saescale.campaign.plan import make_plan
from saescale.campaign.resources import requests
from saescale.campaign.sweep import load
from saescale.records.store import Store
from saescale.slurm_site import Request, SlurmConfig, memory_bytes, minutes

SITE = {"account": None, "qos": None, "constraint": None, "setup": (), "environment": {}, "max_array_size": None,
        "max_submit": None, "signal_delay_s": 120}


@pytest.mark.parametrize(("text", "expected"), [
    ("90m", 90), ("4h", 240), ("2d", 2880), ("4:00:00", 240), ("1-12:00:00", 2160), ("0:01:01", 2), ("0:59:30", 60)])
def test_time_limits_in_whole_minutes(text, expected):
    assert minutes("key", text) == expected


@pytest.mark.parametrize("text", ["", "4", "4 h", "4:00", "1:99:00", "-1h", "0h", "0:00:10", "4h; rm x", "1e3m", "four"])
def test_a_malformed_time_is_refused_with_its_forms(text):
    with pytest.raises(ValueError, match=r"cluster.job.time='.*' is (not a time limit|too short)"):
        Request(0, None, 1, "1G", text, None)


@pytest.mark.parametrize(("text", "expected"), [("800M", 800 * 2**20), ("16G", 16 * 2**30), ("1.5T", 1.5 * 2**40),
                                                ("2GB", 2**31)])
def test_memory_counts_in_powers_of_1024(text, expected):
    assert memory_bytes("key", text) == expected


@pytest.mark.parametrize("text", ["", "16", "16 G", "0G", "-1G", "16g", "16GiB", "$(touch x)"])
def test_malformed_memory_is_refused(text):
    with pytest.raises(ValueError, match=r"cluster.job.memory=.* is not an amount of memory"):
        Request(0, None, 1, text, "1h", None)


@pytest.mark.parametrize(("key", "value"), [("account", "a b"), ("qos", "x;y"), ("constraint", "$(touch x)"), ("account", "")])
def test_names_for_sbatch_are_one_plain_word(key, value):
    with pytest.raises(ValueError, match=f"cluster.slurm.{key}=.* is not a name Slurm could know"):
        SlurmConfig(**{**SITE, key: value})


@pytest.mark.parametrize("site", [
    {"environment": {"WANDB_API_KEY": "abc"}}, {"environment": {"HF_TOKEN": "hf_x"}}, {"setup": ("export AWS_SECRET=abc",)},
    {"setup": ("module load x", 'export DB_PASSWORD="abc"')}])
def test_a_secret_would_reach_the_scripts_and_is_refused_without_repeating_it(site):
    with pytest.raises(ValueError, match="into every script") as refused:
        SlurmConfig(**{**SITE, **site})
    assert "abc" not in str(refused.value) and "hf_x" not in str(refused.value)


def test_a_secret_that_is_looked_up_when_the_job_runs_is_fine():
    SlurmConfig(**{**SITE, "setup": ("export HF_TOKEN=$(cat ~/.hf)", 'export WANDB_API_KEY="$KEY"')})


def test_the_first_rule_that_holds_says_what_a_run_asks_for(project):
    overrides = ("cluster=slurm", "cluster.job.memory=2G",
                 "cluster.rules=[{when: 'n_latents >= 32', gpus: 2, time: 12h}, {when: 'n_latents >= 16', gpus: 1}]")
    plan = make_plan(load("tiny", overrides), Store(project.store))
    asked = {r.science["sae"]["n_latents"]: requests(plan.cluster)(r) for r in plan.runs}
    assert (asked[32].gpus, asked[32].time, asked[32].memory) == (2, "12h", "2G")
    assert (asked[16].gpus, asked[16].time) == (1, plan.cluster.job.time)


def test_a_job_has_a_rank_for_each_gpu_of_its_nodes_and_work_of_one_process_asks_for_one():
    four = Request(2, "h100", 4, "32G", "4h", "gpu", nodes=2)
    assert (four.n_ranks, four.n_gpus, four.ranks_on_a_node) == (4, 4, 2)
    assert four.label == "2 nodes with 2 x h100, 4 ranks, 4 cores a rank, 32G, 4h, gpu"
    assert Request(0, None, 1, "1G", "4h", None, nodes=2, ranks_per_node=3).n_ranks == 6
    one = four.of_one_process()
    assert (one.n_ranks, one.n_gpus, one.label) == (1, 1, "1 x h100, 4 cores, 32G, 4h, gpu")
    with pytest.raises(ValueError, match=r"cluster.job.nodes=0 is out of range"):
        Request(0, None, 1, "1G", "4h", None, nodes=0)


def test_what_a_job_asks_for_is_no_part_of_a_run(project):
    plain = make_plan(load("tiny"), Store(project.store))
    other = make_plan(load("tiny", ("cluster=slurm", "cluster.job.memory=64G", "cluster.job.gpus=8")), Store(project.store))
    assert [r.run_id for r in plain.runs] == [r.run_id for r in other.runs] and other.sweep.folder_name == "tiny"


@pytest.mark.parametrize(("override", "said"), [
    ("cluster=nope", "Choose one of: inprocess, local, slurm"), ("cluster.job.tiem=4h", "Did you mean cluster.job.time"),
    ("cluster.rules=[{when: 'n_latents ** 2 > 1', gpus: 1}]", "the condition"), ("cluster.rules=[{gpus: 1}]", "when is missing"),
    ("cluster.rules=3", "is not a list"), ("cluster.ranks=2", "cluster.ranks is not a known setting"),
    ("cluster.slurm.environment=[1]", "is not a mapping"),
    ("cluster.job.time=240", "wrong type"), ("cluster.job.time=3m", "leaves no time to train"),
    ("cluster.rules=[{when: 'k > 1', time: 1m}]", "leaves no time to train")])
def test_a_cluster_that_cannot_be_is_refused(project, override, said):
    chosen = (override,) if override.startswith("cluster=") else ("cluster=slurm", override)
    with pytest.raises(ValueError, match=r".") as refused:
        plan = make_plan(load("tiny", chosen), Store(project.store))
        requests(plan.cluster)
    assert said in str(refused.value)


def test_a_sweep_whose_name_is_a_command_is_refused():
    with pytest.raises(ValueError, match=r"is not a sweep name"):
        load("$(touch x)")
