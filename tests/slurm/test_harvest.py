"""Training on a cluster waits for the harvest it reads."""

import json

import one_host
import pytest
from lab import Lab, queued

pytestmark = pytest.mark.slurm
ON_SLURM = ("cluster=slurm", "cluster.workers=2", "cluster.job.memory=4G", "cluster.job.time=10m", "seed=0", "budget.flops=4e8")


def test_harvest_arrays_come_first_and_training_depends_on_them(cluster, project, tmp_path):  # noqa: ARG001
    lab = Lab(project.root, tmp_path / "store")
    code, said = lab.run("launch", "tiny", *ON_SLURM)
    assert code == 4, said
    log = next(lab.store_root.glob("tiny+*/submissions.jsonl"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["stage"] for line in lines if line["event"] == "intent"] == ["harvest", "train", "report"]
    numbers = [line["number"] for line in lines if line["event"] == "submitted"]
    waits = {n: one_host.said("squeue", "-h", "-j", n, "-o", "%E").split() for n in numbers}
    assert all(numbers[0] in w and w.startswith("afterok") for w in waits[numbers[1]]), waits
    assert all(numbers[1] in w and w.startswith("afterany") for w in waits[numbers[2]]), waits
    lab.settle()
    assert lab.run("status", "tiny", *ON_SLURM)[0] == 0
    code, said = lab.run("launch", "tiny", *ON_SLURM)
    assert code == 0 and "0 to run" in said and not queued()


def test_harvests_handed_over_twice_make_every_shard_once(cluster, project, tmp_path):  # noqa: ARG001
    lab = Lab(project.root, tmp_path / "store")
    for workers in (1, 2):  # jobs of other shares of the same shards
        arguments = (ON_SLURM[0], f"cluster.workers={workers}", *ON_SLURM[2:])
        code, said = lab.run("harvest", "tiny", *arguments)
        assert code == 4 and f"{workers} harvest jobs submitted in 1 arrays" in said and "next: saescale status" in said, said
    lab.settle()
    code, said = lab.run("harvest", "tiny", *arguments)
    assert code == 0 and "0 shards are missing.\n" in said and not queued(), said
    jobs = list(lab.store_root.glob("jobs/*"))
    assert len(jobs) == 3 and json.loads((jobs[0] / "job.json").read_text())["request"]["memory"] == "4G"
    done = sum(json.loads((job / "attempts" / "0" / "exit.json").read_text())["done"] for job in jobs)
    kept = sum(f.stat().st_size for f in lab.store_root.glob("activations/*/*.bin")) // (2 * 128)  # bfloat16, d_in 128
    assert done == kept > 0
