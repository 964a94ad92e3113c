"""Jobs of several nodes with a task per GPU, on a real Slurm: they end together, and what they leave is what four ranks leave."""

import json
import os
import re
import shutil
import signal

import one_host
import pytest
from lab import SIXTY, Lab, left_by, queued, shim, slowed

from saescale.records.store import read_lines

pytestmark = pytest.mark.slurm
FOUR = SIXTY.replace("[16, 24, 32, 48, 64]", "[64]").replace("[65_536, 131_072, 262_144]", "[262_144]").replace(
    "[0, 1, 2, 3]", "[0, 1]").replace("batch_tokens: 128", "batch_tokens: 1024").replace("  cluster.rules:", """\
  cluster.shard_above_gb: 0
  cluster.job.nodes: 2
  cluster.slurm.environment: {GLOO_SOCKET_IFNAME: lo}
  cluster.rules:""")
BOUND_S = 60  # for all tasks of a job to be gone after one was killed; Slurm's KillWait is 5 s here


@pytest.fixture(scope="module")
def sweep(project_root):
    (project_root / "sweeps" / "four.yaml").write_text(FOUR)


@pytest.fixture(scope="module")
def undisturbed_four(sweep, project_root, tmp_path_factory):  # noqa: ARG001
    """The same runs sharded over four ranks of one machine, left alone."""
    lab = Lab(project_root, tmp_path_factory.mktemp("four") / "runs")
    code, said = lab.run("launch", "four", "cluster=local", "cluster.workers=1", "cluster.ranks=4", "cluster.shard_above_gb=0")
    assert code == 0, said
    return left_by(lab.store)


def jobs(lab):
    """run -> (element of the queue, directory of its job)."""
    lines = read_lines(lab.store.sweep_dir("four") / "submissions.jsonl")
    found = {}
    for intent in (line for line in lines if line["event"] == "intent" and line["stage"] == "train"):
        number = next(line["number"] for line in lines if line["event"] == "submitted" and line["token"] == intent["token"])
        for i, (job, runs) in enumerate(intent["jobs"].items()):
            found[runs[0]] = (f"{number}_{i}" if len(intent["jobs"]) > 1 else number, lab.store.job_dir(job))
    return found


def trains(lab, run):
    status = lab.store.run_dir(run) / "status.json"
    return status.exists() and (json.loads(status.read_text()).get("tokens") or 0) > 0


def exits(job, attempt):
    """rank -> how its task ended."""
    folder = job / "attempts" / str(attempt)
    names = ["exit.json", *(f"exit.{r}.json" for r in (1, 2, 3))]
    return {r: json.loads((folder / n).read_text()) for r, n in enumerate(names) if (folder / n).exists()}


def test_a_job_of_two_nodes_and_four_ranks_that_is_warned_saves_on_all_queues_itself_once_and_gives_the_bits_of_four_ranks(
        lab, undisturbed_four, tmp_path):
    calls = tmp_path / "scontrol.calls"
    counted = shim(tmp_path / "shim", "scontrol", f'echo "$@" >> {calls}\nexec {shutil.which("scontrol")} "$@"')
    code, said = lab.run("launch", "four", **slowed(tmp_path / "slow", 0.5), **counted)
    assert code == 4 and "3 jobs submitted" in said, said
    (run, (first, job)), (_, (_, other)) = jobs(lab).items()
    one_host.wait_for("training", lambda: trains(lab, run), 120)
    assert "NumNodes=2" in one_host.said("scontrol", "show", "job", first) and "gres/gpu=4" in one_host.said(
        "sacct", "-nXP", "-j", first, "-o", "ReqTRES")
    one_host.said("scancel", "--signal=USR2", first)
    one_host.wait_for("the end of all ranks", lambda: len(exits(job, 0)) == 4)
    assert {e["exit_code"] for e in exits(job, 0).values()} == {4}
    lab.settle()
    assert [c for c in calls.read_text().splitlines() if c.startswith("requeue")] == [f"requeue {first}"]
    assert [json.loads(p.read_text())["slurm"]["restarts"] for p in sorted(job.glob("attempts/*/start.json"))] == ["0", "1"]
    assert len(list(other.glob("attempts/*"))) == 1 and {e["exit_code"] for e in exits(other, 0).values()} == {0}
    assert left_by(lab.store) == undisturbed_four
    result = json.loads((lab.store.run_dir(run) / "result.json").read_text())
    assert result["environment"]["ranks"] == 4


def test_one_rank_killed_ends_the_others_soon_is_called_killed_and_the_job_goes_on_to_the_same_bits(
        lab, undisturbed_four, tmp_path):
    arguments = ("four", "--only", "seed == 0")
    for i, struck in enumerate([("worker", 3), ("task", 2)]):
        code, said = lab.run("launch", *arguments, **slowed(tmp_path / "slow", 0.5))
        assert code == 4 and "2 jobs submitted" in said, said
        ((run, (element, job)),) = jobs(lab).items()
        one_host.wait_for("training", lambda i=i, run=run: trains(lab, run) and n_takers(lab) == i + 1, 120)
        os.kill(lab.ranks()[struck], signal.SIGKILL)
        one_host.wait_for("the end of the job", lambda: not lab.processes(), BOUND_S)
        one_host.wait_for("its end in the queue", lambda element=element: element not in queued(), BOUND_S)
        one_host.said("scancel", *queued())  # the report
        lab.settle()
        found = json.loads(lab.run("why", "four", "--json")[1])[run]
        assert found["class"] == "killed" and re.search(f"rank {struck[1]} of 4|task {struck[1]}: Killed", str(found)), found
    lab.run("launch", *arguments)
    lab.settle()
    assert left_by(lab.store)[run] == undisturbed_four[run] and len(list(job.glob("attempts/*"))) == 3


def n_takers(lab):
    """How often the one trunk was begun or taken up."""
    return sum(line["event"] == "taken" for p in lab.store_root.glob("trunks/*/owners.jsonl") for line in read_lines(p))
