import dataclasses

import pytest

from saescale.activations import stream
from saescale.activations.folder import BUNDLED
from saescale.campaign import fleets as packing
from saescale.campaign import memory, placement, price
from saescale.campaign.fleets import fleets
from saescale.campaign.plan import PlannedRun
from saescale.config import ClusterConfig
from saescale.sae import model
from saescale.sae.kinds import KINDS
from saescale.training import fleet

D = 64


def run(steps, n_latents=1000, seed=0, decay=0.2, kind="topk", batch=512):
    science = {"lm": {"d_in": D}, "data": {"batch_sequences": 8, "n_ctx": 64}, "eval": {"n_tokens": 1000},
               "sae": {"n_latents": n_latents, "kind": kind},
               "train": {"n_tokens": steps * batch, "batch_tokens": batch, "lr_decay_fraction": decay, "seed": seed}}
    return PlannedRun(f"{n_latents}-{seed}-{steps}", f"{n_latents}-{seed}", ("g",), None, science, {"lm_path": None})


def cluster(workers=2, memory_gb=None, kind="local"):
    return ClusterConfig(kind, workers, 1, memory_gb, "auto", 20, 1)


def test_the_estimate_knows_the_numbers_of_the_code_it_estimates():
    assert stream.SEGMENT_BATCHES == memory.SEGMENT_BATCHES and fleet.BLOCK_TOKENS == memory.BLOCK_TOKENS
    assert model.INFERENCE_TOKENS == memory.INFERENCE_TOKENS
    for name, kind in KINDS.items():
        assert model.n_params(kind, D, 1000) == memory.n_params(run(1, kind=name))


def test_live_members_are_the_trunk_and_the_branches_open_at_the_same_time():
    # blocks of 32 steps; forks at 800, 8,000 and 80,000: no two branches meet, and the trunk lives to the last fork
    assert memory.live_members([run(1000)]) == 2
    assert memory.live_members([run(1000), run(10_000), run(100_000)]) == 2
    assert memory.live_members([run(1000), run(1100), run(1200)]) == 4  # forks at 800, 880, 960
    assert memory.live_members([run(1000), run(1240), run(1280)]) == 4  # 1,000 and 1,024 lie in one block
    assert memory.live_members([run(1000), run(1300), run(2000)]) == 2  # each ends before the next forks


def test_a_member_is_its_weights_and_both_moments_and_only_the_stepping_one_has_a_gradient():
    assert memory.members_bytes([run(1000)]) == 2 * (12 * (2 * D * 1000 + 1000 + D) + 8 * 1000)


def test_a_worker_needs_more_for_every_trunk_and_more_for_a_language_model():
    one, two = memory.worker_bytes([[run(1000)]]), memory.worker_bytes([[run(1000)], [run(1000, seed=1)]])
    assert two - one == memory.members_bytes([run(1000)])
    assert memory.lm_bytes(None, 512) == 0 < memory.lm_bytes(str(BUNDLED), 512) < memory.lm_bytes(str(BUNDLED), 4096)


def test_the_peak_a_probe_measured_takes_the_place_of_the_estimate():
    probed = dataclasses.replace(run(1000), peak_gb=2.0)
    (trunk,) = price.by_trunk([probed]).values()
    assert memory.passing_bytes(trunk) == 2e9 - memory.PROCESS_BYTES - 12 * memory.n_params(probed)
    assert memory.worker_bytes([trunk]) > memory.worker_bytes([[run(1000)]])
    assert memory.passing_bytes([dataclasses.replace(probed, peak_gb=0.1)]) == 4 * memory.n_params(probed)


def test_with_room_there_is_a_fleet_per_worker_and_a_trunk_is_never_split():
    runs = [run(steps, seed=s) for s in range(6) for steps in (1000, 2000)]
    packed = fleets(runs, cluster(3, memory_gb=100))
    assert sorted(r.run_id for f in packed for r in f) == sorted(r.run_id for r in runs)
    assert [len(price.by_trunk(f)) for f in packed] == [2, 2, 2]
    assert all(len(f) == 4 for f in packed)


def test_fleets_are_split_until_each_fits_into_a_workers_share():
    runs = [run(1000, n_latents=100_000, seed=s) for s in range(8)]
    room = memory.worker_bytes([[runs[0]], [runs[1]]]) * 1.01
    packed = fleets(runs, cluster(2, memory_gb=2 * room / 1e9))
    assert [len(f) for f in packed] == [2, 2, 2, 2] and all(memory.fleet_bytes(f) <= room for f in packed)
    placement.refuse_too_large(packed, cluster(2, memory_gb=2 * room / 1e9))
    assert [len(f) for f in fleets(runs, cluster(2, 2 * room / 1e9, kind="inprocess"))] != [2, 2, 2, 2]  # one at a time: all room


def test_what_cannot_fit_is_refused_with_the_biggest_fleet_and_what_to_do():
    runs = [run(1000, n_latents=200_000), run(1000, n_latents=1000)]
    packed = fleets(runs, cluster(2, memory_gb=0.5))
    with pytest.raises(ValueError) as e:
        placement.refuse_too_large(packed, cluster(2, memory_gb=0.5))
    text = str(e.value)
    assert "cluster.memory_gb allows 0.5 GB" in text and "1 trunk with 2 live members up to n_latents=200000" in text
    assert "cluster.workers=1" in text and "Nothing was started" in text and "\n" not in text


def test_a_large_fleet_beside_a_small_one_is_allowed_when_both_fit_together():
    runs = [run(1000, n_latents=200_000), run(1000, n_latents=1000)]
    both = sum(memory.worker_bytes([[r]]) for r in runs) * 1.01 / 1e9
    assert placement.refuse_too_large(fleets(runs, cluster(2, both)), cluster(2, both)) is None


def test_streams_that_differ_are_not_mixed():
    other = run(1000, batch=256)
    assert packing.fleet_key(other) != packing.fleet_key(run(1000))
    assert sorted(len(f) for f in fleets([run(1000), run(2000), other], cluster(1, 100))) == [1, 2]


def test_without_a_limit_the_machine_is_asked():
    assert memory.limit_bytes(cluster(memory_gb=3.0)) == 3e9
    assert 0 < memory.limit_bytes(cluster()) == pytest.approx(memory.available_bytes(), rel=0.2)
