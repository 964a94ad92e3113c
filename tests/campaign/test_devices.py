"""What a plan says of GPUs, without one: nvidia-smi's words are given."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from saescale.campaign import devices, doctor, local, memory, placement
from saescale.campaign.devices import GPU, parsed
from saescale.campaign.fleets import fleets
from saescale.campaign.plan import PlannedRun, make_plan
from saescale.campaign.sweep import load
from saescale.config import ClusterConfig
from saescale.records.store import Store
from saescale.slurm_site import Request, SlurmConfig

SMI = "0, NVIDIA H100 80GB HBM3, 81559, 80994\n1, NVIDIA H100 80GB HBM3, 81559, 40000\n2, Odd Card, [N/A], [N/A]\n"


def runs(*sizes, kind="topk"):
    science = {"lm": {"d_in": 64}, "data": {"batch_sequences": 8, "n_ctx": 64}, "eval": {"n_tokens": 1000},
               "train": {"n_tokens": 512_000, "batch_tokens": 512, "lr_decay_fraction": 0.2}}
    return [PlannedRun(f"r{i}", f"t{i}", ("g",), None, science | {"sae": {"kind": kind, "n_latents": n}}, {"lm_path": None})
            for i, n in enumerate(sizes)]


def slurm(device="auto", gpu_gb=None, gpu_type=None, gpus=1, memory="100G"):
    site = SlurmConfig(None, None, None, (), {}, None, None, 120)
    return ClusterConfig("slurm", 8, 1, None, "cpu", 20, 1, job=Request(gpus, gpu_type, 1, memory, "4h", None), slurm=site,
                         device=device, gpu_memory_gb=gpu_gb)


def here(monkeypatch, *cards, device="auto", workers=1, ranks=1):
    monkeypatch.setattr(devices, "gpus_here", lambda: cards)
    return ClusterConfig("local", workers, 1, 100.0, "cpu", 20, 1, ranks, device=device)


def card(gb):
    return GPU("Card", gb * 1e9, gb * 1e9)


@pytest.mark.parametrize("visible, found", [(None, 2), ("1", 1), ("1,0", 2), ("", 0), ("-1", 0), ("GPU-a1b2", 1), ("7", 0)])
def test_the_gpus_a_process_will_see_are_those_nvidia_smi_shows_and_cuda_visible_devices_leaves(visible, found):
    assert len(parsed(SMI, visible)) == found
    assert visible != "1" or parsed(SMI, visible)[0].free_bytes == 40000 * 2**20


def test_auto_trains_on_the_gpus_a_job_asks_for_and_else_on_the_processor(monkeypatch):
    assert memory.room_of(runs(1000), slurm()).on_gpu and not memory.room_of(runs(1000), slurm(gpus=0)).on_gpu
    assert not memory.room_of(runs(1000), slurm("cpu")).on_gpu
    assert memory.room_of(runs(1000), here(monkeypatch, card(80))).on_gpu
    assert not memory.room_of(runs(1000), here(monkeypatch)).on_gpu


def test_cuda_without_a_gpu_is_refused_before_anything_starts(monkeypatch):
    with pytest.raises(ValueError, match="cluster.device=cuda, but cluster.job.gpus=0: ask for at least one GPU, or choose"):
        memory.room_of(runs(1000), slurm("cuda", gpus=0))
    with pytest.raises(ValueError, match="cluster.device=cuda, but .*: train where there is one, or choose"):
        memory.room_of(runs(1000), here(monkeypatch, device="cuda"))


def test_more_ranks_than_gpus_are_refused_before_anything_starts(monkeypatch):
    with pytest.raises(ValueError, match="cluster.ranks=2 and this machine has 1 of the GPUs"):
        memory.room_of(runs(1000), here(monkeypatch, card(80), ranks=2))
    cluster = slurm(gpus=1)
    shared = dataclasses.replace(cluster, job=dataclasses.replace(cluster.job, ranks_per_node=4))
    with pytest.raises(ValueError, match="cluster.job.ranks_per_node=4 and cluster.job.gpus=1: a rank that trains on a GPU"):
        memory.room_of(runs(1000), shared)
    assert memory.room_of(runs(1000), dataclasses.replace(shared, device="cpu")).ranks == 4


@pytest.mark.parametrize("gpu_type, given, gb", [("h100", None, 80), ("NVIDIA_A100-SXM4-80GB", None, 40), ("h200", None, 141),
                                                ("a100", 80.0, 80), ("mystery", None, math.inf), (None, None, math.inf)])
def test_a_gpu_of_a_cluster_has_what_is_set_or_the_least_its_type_is_sold_with(gpu_type, given, gb):
    room = memory.room_of(runs(1000), slurm(gpu_type=gpu_type, gpu_gb=given))
    assert room.rank_bytes == (math.inf if math.isinf(gb) else pytest.approx(gb * 1e9))


def test_workers_of_this_machine_share_its_gpus_and_their_memory(monkeypatch):
    assert memory.room_of(runs(1000), here(monkeypatch, card(80), workers=2)).rank_bytes == 40e9
    assert memory.room_of(runs(1000), here(monkeypatch, card(80), card(80), workers=2)).rank_bytes == 80e9
    assert memory.room_of(runs(1000), here(monkeypatch, card(80), card(60), workers=2)).rank_bytes == 60e9


def test_on_a_gpu_lie_the_context_the_members_their_step_and_the_blocks_and_the_stream_stays_on_the_host():
    (run,) = fleet = runs(10_000)
    params = 2 * 64 * 10_000 + 10_000 + 64
    blocks = 3 * 4 * 16384 * 64
    step = 4 * params + 32 * 1024 * 10_000  # gradient; 1,024 tokens encoded at once when it is measured
    assert memory.worker_bytes([fleet], on_gpu=True) == 1e9 + blocks + step + 2 * (12 * params + 8 * 10_000)
    assert memory.host_bytes(fleet) == 0.3e9 + 0.8e9 + memory.reading_bytes(run) + 0.3e9 + 12 * params


def test_an_sae_too_large_for_a_gpu_is_dealt_over_all_and_one_too_large_for_all_is_refused():
    needs = memory.worker_bytes([runs(400_000)], on_gpu=True) / 1e9
    assert list(placement.place(runs(400_000), slurm(gpu_gb=needs * 1.01, gpus=2)).homes.values()) == [0]
    dealt = slurm(gpu_gb=needs * 0.9, gpus=2)
    assert list(placement.place(runs(400_000), dealt).homes.values()) == [None]
    assert placement.refuse_too_large(fleets(runs(400_000), dealt), dealt) is None
    small = slurm(gpu_gb=needs * 0.3, gpus=2, gpu_type="h100")
    with pytest.raises(ValueError, match=r"on a GPU, dealt over 2 GPUs, and a process has .* GB of h100: the fleet is 1 trunk .*"
                                         r"up to n_latents=400000.*\(cluster.job.gpus\).*Nothing was started"):
        placement.refuse_too_large(fleets(runs(400_000), small), small)


def test_a_fleet_is_split_until_its_members_fit_a_gpu(monkeypatch):
    one = memory.worker_bytes([runs(100_000)], on_gpu=True)
    both = one + memory.members_bytes(runs(100_000))
    assert len(fleets(runs(100_000, 100_000), here(monkeypatch, card(both * 1.01 / 1e9)))) == 1
    assert len(fleets(runs(100_000, 100_000), here(monkeypatch, card(both * 0.99 / 1e9)))) == 2


def test_the_memory_of_the_machine_is_checked_too_when_the_weights_lie_on_a_gpu():
    needed = memory.host_bytes(runs(400_000))
    with pytest.raises(ValueError, match="Raise cluster.job.memory"):
        placement.refuse_too_large([runs(400_000)], slurm(gpu_gb=80.0, memory=f"{round(needed * 0.9 / 2**20)}M"))
    enough = slurm(gpu_gb=80.0, memory=f"{round(needed * 1.1 / 2**20)}M")
    assert placement.refuse_too_large([runs(400_000)], enough) is None


def test_the_plan_says_where_it_trains_and_when_the_memory_of_a_gpu_is_not_known():
    assert placement.trains_on([runs(1000)], slurm("cpu")) == "device: cpu"
    assert placement.trains_on([runs(1000)], slurm(gpu_type="h100")).startswith("device: cuda, h100 (80.0 GB); estimated seconds")
    assert "GPU (memory not known, so not checked: set cluster.gpu_memory_gb)" in placement.trains_on([runs(1000)], slurm())


def test_the_processes_of_workers_at_work_have_numbers_of_their_own_to_choose_a_gpu_by(tmp_path, monkeypatch):
    seen = []

    class Rank:
        def __init__(self, _command, _attempt, rank, env, _cwd):
            seen.append((rank, env["RANK"], env["LOCAL_RANK"]))

    monkeypatch.setattr(local, "Rank", Rank)
    content = {"stage": "train", "execution": {"threads": 1}}
    local.Worker(tmp_path, content, seat=3)
    local.Worker(tmp_path, {**content, "n_ranks": 2}, seat=1)
    assert seen == [(0, "0", "3"), (0, "0", "2"), (1, "1", "3")]


def test_a_worker_that_starts_takes_the_seat_of_one_that_ended(tmp_path, monkeypatch):
    seats, polls = [], {"a": [True], "b": [False, True], "c": [True]}  # a ends at once, b goes on: c sits where a did

    class Worker:
        def __init__(self, job, _content, seat):
            self.left, self.seat = iter(polls[job.name]), seat
            seats.append(seat)

        def poll(self):
            return next(self.left)

        def finish(self):
            return None

    monkeypatch.setattr(local, "Worker", Worker)
    monkeypatch.setattr(local, "POLL_S", 0)
    monkeypatch.setattr(local, "_show", lambda *_: None)
    assert local.run_pool([tmp_path / name for name in "abc"], 2, "train", None) == [] and seats == [0, 1, 0]


@pytest.mark.parametrize("torch_says, verdict, expected", [
    ('["13.0", true, [["Card", 80000000000], ["Card", 80000000000]]]', "ok", "Card, 80.0 GB, CUDA 13.0"),
    ('["13.0", false, [["Card", 80000000000], ["Card", 80000000000]]]', "warn", "not available"),
    ('[null, false, []]', "warn", "torch is built without CUDA"), ("Segmentation fault", "warn", "torch cannot be asked")])
def test_the_doctor_says_which_gpus_torch_sees_and_what_is_lost(monkeypatch, torch_says, verdict, expected):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=f"a warning\n{torch_says}\n"))
    checks = list(doctor.gpus())
    assert doctor.worst(checks) == verdict and any(expected in check.said for check in checks)
    assert all(check.advice for check in checks if check.verdict == "warn")


def test_the_doctor_calls_a_machine_without_a_gpu_well(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert [(c.verdict, c.said) for c in doctor.gpus()] == [("ok", "none here: SAEs train on the processor")]


def test_the_device_changes_no_run_id(project):
    store = Store(project.store)
    ids = [[r.run_id for r in make_plan(load("tiny", (f"cluster.device={d}",)), store).runs] for d in ("auto", "cpu", "cuda")]
    assert ids[0] == ids[1] == ids[2]
