"""How single jobs end on a real Slurm, and what is said of it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import one_host
import pytest
from lab import REPOSITORY, SIXTY, Lab, left_by, queued, shim

pytestmark = pytest.mark.slurm
FEW = SIXTY.replace("[16, 24, 32, 48, 64]", "[32]").replace("[65_536, 131_072, 262_144]", "[262_144]").replace(
    "[0, 1, 2, 3]", "[0, 1, 2]")
WORK = (262_144 + 0.7 * 4096) * (1500 + 32)  # of one run, as training counts it, its evaluation included


@pytest.fixture
def few(lab, slow_blocks):
    """Three runs, a job each, one array."""
    (lab.root / "sweeps" / "few.yaml").write_text(FEW)
    lab.environment |= slow_blocks
    return lab


def jobs(lab):
    """element of the queue -> its job's directory."""
    lines = [json.loads(line) for line in (lab.store.sweep_dir("few") / "submissions.jsonl").read_text().splitlines()]
    found = {}
    for intent in (line for line in lines if line["event"] == "intent" and line["stage"] == "train"):
        number = next(line["number"] for line in lines if line["event"] == "submitted" and line["token"] == intent["token"])
        for i, job in enumerate(intent["jobs"]):
            found[f"{number}_{i}" if len(intent["jobs"]) > 1 else number] = lab.store.job_dir(job)
    return found


def trains(lab, job):
    """Whether the job's worker is in its training loop, with a checkpoint behind it."""
    run = json.loads((job / "job.json").read_text())["runs"][0]
    status = lab.store.run_dir(run) / "status.json"
    return status.exists() and (json.loads(status.read_text()).get("tokens") or 0) > 0


def exits(job):
    return [json.loads(p.read_text()) for p in sorted((job / "attempts").glob("*/exit.json"))]


@pytest.fixture(scope="session")
def few_undisturbed(cluster, project_root, tmp_path_factory):  # noqa: ARG001
    """The same three runs in one process: what they leave."""
    lab = Lab(project_root, tmp_path_factory.mktemp("few") / "runs")
    (project_root / "sweeps" / "few.yaml").write_text(FEW)
    code, said = lab.run("launch", "few", "cluster=inprocess")
    assert code == 0, said
    return left_by(lab.store)


def test_a_warned_element_saves_and_queues_exactly_itself_again(few, few_undisturbed):
    few.run("launch", "few")
    (first, job), *others = jobs(few).items()
    one_host.wait_for("training", lambda: trains(few, job))
    one_host.said("scancel", "--signal=USR2", first)
    one_host.wait_for("its requeue", lambda: exits(job))
    ended = exits(job)[0]
    assert (ended["exit_code"], ended["asked"]) == (4, "requeue") and ended["done"] > 0
    few.settle()
    assert exits(job)[-1]["exit_code"] == 0
    assert json.loads((job / "attempts" / "1" / "start.json").read_text())["slurm"]["id"] == first
    assert [len(exits(other)) for _, other in others] == [1, 1]
    assert left_by(few.store) == few_undisturbed
    code, said = few.run("status", "few")
    assert code == 0 and "3 done" in said


def test_an_unwarned_stop_saves_and_leaves_it_to_the_scheduler_whether_the_job_comes_back(few, few_undisturbed):
    few.run("launch", "few")
    first, job = next(iter(jobs(few).items()))
    one_host.wait_for("training", lambda: trains(few, job))
    one_host.said("scancel", "--signal=TERM", first)
    one_host.wait_for("its exit", lambda: exits(job))
    assert (exits(job)[0]["exit_code"], exits(job)[0]["asked"]) == (4, "stop")
    assert first in queued("RUNNING")  # it waits: an end of its own would read as a failure
    one_host.said("scontrol", "requeue", first)
    few.settle()
    assert left_by(few.store) == few_undisturbed


def test_a_preemption_without_a_warning_saves_all_work_and_the_job_comes_back_by_itself(few, few_undisturbed, cluster):
    cluster.warn_before_preemption(False)
    try:
        few.run("launch", "few")
        started = jobs(few)
        one_host.wait_for("training", lambda: all(trains(few, job) for job in started.values()))
        one_host.said("sbatch", "-p", "main", "-N", str(one_host.NODES), "--exclusive", "-t", "1", "-o", "/dev/null", "--wrap",
                      "sleep 3")
        one_host.wait_for("their ends", lambda: all(exits(job) for job in started.values()))
        assert [(exits(job)[0]["exit_code"], exits(job)[0]["asked"]) for job in started.values()] == [(4, "stop")] * 3
        few.settle()
    finally:
        cluster.warn_before_preemption(True)
    tried = one_host.said("sacct", "-nXPD", "-j", ",".join(started), "-o", "State").split()
    assert tried.count("PREEMPTED") == 3 and tried.count("COMPLETED") == 3
    for job in started.values():
        before, after = exits(job)
        assert before["done"] > 0 and before["done"] + after["done"] == pytest.approx(WORK)  # nothing was done twice
    assert left_by(few.store) == few_undisturbed


def test_why_tells_a_kill_from_a_cancellation_and_the_next_launch_finishes_both(few, few_undisturbed):
    few.run("launch", "few")
    (_, killed), (second, cancelled), _ = jobs(few).items()
    one_host.wait_for("training", lambda: trains(few, killed) and trains(few, cancelled))
    run = json.loads((killed / "job.json").read_text())["runs"][0]
    lock = next(few.store_root.glob("trunks/*-s*/lock"), None)
    pids = {p.parent.name: json.loads(p.read_text())["pid"] for p in few.store_root.glob("trunks/*/lock")}
    assert lock is not None
    trunk = next(t for t in pids if t.split("-")[3] == run.split("-")[5])
    os.kill(pids[trunk], signal.SIGKILL)
    other = json.loads((cancelled / "job.json").read_text())["runs"][0]
    seed = other.split("-")[5].removeprefix("s")
    code, said = few.run("cancel", "few", "--only", f"seed == {seed}", "--yes")
    assert code == 0 and second in said and "1 jobs cancelled" in said
    code, said = few.run("cancel", "few")
    assert code == 2 and "give --yes" in said
    few.settle()
    code, said = few.run("why", "few", "--json")
    found = json.loads(said)
    assert found[run]["class"] == "killed" and "signal 9" in " ".join(found[run]["evidence"])
    assert found[other]["class"] == "cancelled" and "CANCELLED" in found[other]["evidence"][0]
    code, said = few.run("logs", run[-10:])
    assert code == 0, said
    code, said = few.run("retry", "few", "--class", "killed,cancelled", "--set", "cluster.job.memory=*2")
    assert code == 4 and "3 jobs submitted" in said, said  # two, and the report
    assert json.loads((killed / "job.json").read_text())["request"]["memory"] == "4G"
    few.settle()
    assert few.run("status", "few")[0] == 0 and left_by(few.store) == few_undisturbed


def test_the_submit_limit_of_the_accounting_is_read_and_respected(few):
    one_host.said("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=3")
    try:
        code, said = few.run("launch", "few", "train.n_tokens=65536")
        assert code == 4 and "1 jobs wait for room in the queue (limit 3)" in said and len(queued()) == 3
        few.settle()
    finally:
        one_host.said("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")
    code, said = few.run("launch", "few", "train.n_tokens=65536")
    assert code == 4 and "2 jobs submitted" in said
    few.settle()
    assert few.run("status", "few", "train.n_tokens=65536")[0] == 0


def test_a_partition_slurm_does_not_know_is_refused_with_those_it_knows(few):
    code, said = few.run("launch", "few", "cluster.job.partition=nope")
    assert code == 2 and "Choose one of: main, scavenge" in said and not queued()
    code, said = few.run("launch", "few", "--test-only", "cluster.slurm.constraint=nope")
    assert code == 3 and "would refuse" in said and "Invalid feature" in said
    code, said = few.run("launch", "few", "--test-only", "cluster.job.gpu_type=h100")
    assert code == 0 and "would accept" in said and not queued()


def test_editing_the_tree_does_not_change_what_was_submitted_from_a_path_with_spaces_and_quotes(few, tmp_path):
    tree = tmp_path / "a tree"
    for name in ("saescale", "analysis", "conf", "sweeps"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    lab = Lab(few.root, tmp_path / "it's a $HOME store")
    lab.environment["PYTHONPATH"] = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
    one_host.said("scontrol", "update", "partitionname=scavenge", "state=down")  # accepted, not started
    try:
        code, said = lab.run("launch", "few", "--limit", "1")
        assert code == 4, said
        (tree / "saescale" / "training" / "train.py").write_text("raise SystemExit('edited')\n")
        (tree / "saescale" / "campaign" / "task.py").write_text("raise SystemExit('edited')\n")
    finally:
        one_host.said("scontrol", "update", "partitionname=scavenge", "state=up")
    lab.settle()
    assert len(list(lab.store_root.glob("by-id/*/result.json"))) == 1
    assert (lab.store_root / "few" / "table.csv").exists()


def test_a_launcher_killed_after_sbatch_accepted_is_found_by_its_name(few, tmp_path):
    killing = shim(tmp_path / "shim", "sbatch", f"{shutil.which('sbatch')} \"$@\"\nkill -9 $PPID")
    process = few.start("launch", "few", **killing)
    assert process.wait() == -signal.SIGKILL
    assert len(queued()) == 3
    code, said = few.run("launch", "few")
    assert code == 4 and "was submitted before its launcher ended" in said and "0 to run" in said, said
    number = next(iter(jobs(few))).partition("_")[0]
    one_host.said("scancel", number)  # they wait for what the dead launcher never wrote
    few.settle()
    code, said = few.run("launch", "few")
    assert code == 4 and "4 jobs submitted" in said
    one_host.said("scancel", *queued())
    few.settle()


def test_doctor_finds_the_cluster_in_order(few):
    done = subprocess.run([sys.executable, "-m", "saescale.cli", "doctor", "--cluster", "slurm", "--store", str(few.store_root)],
                          capture_output=True, text=True, cwd=few.root, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("sbatch", "sacct", "MaxArraySize 5", "USR2", "shared"):
        assert word in done.stdout, done.stdout
