import pytest

from saescale.campaign import memory, placement, price
from saescale.campaign.fleets import fleets
from saescale.campaign.plan import PlannedRun, make_plan
from saescale.campaign.sweep import load
from saescale.config import ClusterConfig
from saescale.records.store import Store
from saescale.slurm_site import Request, SlurmConfig


def cluster(ranks, memory_gb=100.0, above=None):
    return ClusterConfig("local", 1, 1, memory_gb, "cpu", 20, 1, ranks, above)


def trunks(*sizes):
    """One topk run of 1,000 steps of 512 tokens at d_in 64 for each size."""
    shared = {"lm": {"d_in": 64}, "data": {"batch_sequences": 8, "n_ctx": 64}, "eval": {"n_tokens": 1000},
              "train": {"n_tokens": 512_000, "batch_tokens": 512, "lr_decay_fraction": 0.2}}
    return [PlannedRun(f"r{i}", f"t{i}", ("g",), None, shared | {"sae": {"kind": "topk", "n_latents": n}}, {"lm_path": None})
            for i, n in enumerate(sizes)]


def test_whole_trunks_are_dealt_the_longest_first_so_that_ranks_have_alike_much_to_do():
    fleet = trunks(1000, 2000, 3000, 4000, 5000, 1000)
    homes = placement.place(fleet, cluster(2)).homes
    seconds = [sum(price.trunk_seconds([r]) for r in fleet if homes[r.trunk_id] == rank) for rank in (0, 1)]
    assert set(homes.values()) == {0, 1} and max(seconds) < 1.1 * min(seconds)


def test_a_trunk_larger_than_a_ranks_share_is_dealt_over_all_and_the_others_stay_whole():
    big, small, other = fleet = trunks(400_000, 1000, 1000)
    room = 2 * memory.worker_bytes([[big]]) / 1e9
    assert set(placement.place(fleet, cluster(2, room * 1.01)).homes.values()) == {0, 1}
    placed = placement.place(fleet, cluster(2, room * 0.99))
    assert placed.homes == {big.trunk_id: None, small.trunk_id: 0, other.trunk_id: 1}
    assert max(placed.rank_bytes) < memory.worker_bytes([[big]])


def test_shard_above_gb_decides_in_place_of_the_memory_there_is():
    fleet = trunks(4000, 1000)
    above = memory.members_bytes(fleet[1:]) / 1e9
    assert list(placement.place(fleet, cluster(2, above=above)).homes.values()) == [None, 0]
    assert list(placement.place(fleet, cluster(2, above=0.0)).homes.values()) == [None, None]
    assert list(placement.place(fleet, cluster(1, above=0.0)).homes.values()) == [0, 0]


def test_a_step_of_two_ranks_sends_each_other_half_a_sum_twice_and_its_candidates():
    (r,) = trunks(1000)
    r.science["sae"].update(k=8, aux_coeff=0.0)
    assert placement.sent_bytes(r, 2) == 4 * 64 * (512 + 1) + 512 * 8 * 8
    r.science["sae"]["kind"] = "gated"
    assert placement.sent_bytes(r, 2) == 4 * 64 * (2 * 512 + 1)


def test_a_plan_says_what_is_sharded_what_a_step_sends_and_the_memory_of_a_rank(project):
    store, two = Store(project.store), ("cluster=local", "cluster.ranks=2", "cluster.memory_gb=8", "cluster.shard_above_gb=0")
    plan = make_plan(load("tiny", two), store)
    first, second, *_ = placement.summary([plan.runs], plan.cluster)
    assert first.startswith("ranks: 2 per worker, up to") and first.endswith("0 trunks on one rank each")
    assert second.startswith("sharded over 2 ranks: topk n_latents=16, each rank sends")
    assert placement.summary([plan.runs], make_plan(load("tiny"), store).cluster) == []


def slurm(memory="100G", above=None, **job):
    site = SlurmConfig(None, None, None, (), {}, None, None, 120)
    request = Request(job.pop("gpus", 0), None, 1, memory, "4h", None, **job)
    return ClusterConfig("slurm", 8, 1, None, "cpu", 20, 1, 1, above, request, (), site)


def test_a_job_of_two_nodes_of_two_gpus_has_four_ranks_each_with_half_a_nodes_memory():
    big = trunks(400_000)
    needs = memory.worker_bytes([big])
    room = memory.room_of(big, slurm("16G", nodes=2, gpus=2))
    assert (room.ranks, room.rank_bytes) == (4, 8 * 2**30)
    fits = f"{round(2 * needs * 1.01 / 2**20)}M"
    assert placement.place(big, slurm(fits, nodes=2, gpus=2)).homes == {"t0": 0}
    dealt = placement.place(big, slurm(f"{round(2 * needs * 0.99 / 2**20)}M", nodes=2, gpus=2))
    assert dealt.homes == {"t0": None} and len(dealt.rank_bytes) == 4
    assert dealt.seconds - price.START_S == pytest.approx((price.trunk_seconds(big)) / 4)


def test_a_fleet_that_does_not_fit_the_memory_of_a_node_is_refused_though_the_nodes_together_had_it():
    fleet = trunks(400_000)
    with pytest.raises(ValueError, match=r"on one node and its job asks for 4G.*Raise cluster.job.memory"):
        placement.refuse_too_large([fleet], slurm("4G", nodes=2, gpus=1))
    assert placement.refuse_too_large([fleet], slurm("8G", nodes=2, gpus=1)) is None


def test_no_more_jobs_than_their_ranks_have_trunks_and_a_dealt_trunk_takes_all_ranks():
    eight = trunks(*[1000] * 8)
    assert sorted(map(len, fleets(eight, slurm(gpus=1)))) == [1] * 8
    assert sorted(map(len, fleets(eight, slurm(gpus=2)))) == [2] * 4
    assert sorted(map(len, fleets(eight, slurm(gpus=2, nodes=2)))) == [4] * 2
    assert sorted(map(len, fleets(eight, slurm(gpus=2, above=0.0)))) == [1] * 8


def test_more_ranks_than_a_dealt_trunk_has_latents_are_refused():
    with pytest.raises(ValueError, match="would be dealt over 8 ranks and has sae.n_latents=4"):
        placement.place(trunks(4), slurm(gpus=8, above=0.0))
    assert placement.place(trunks(4), slurm(gpus=8)).homes == {"t0": 0}


def test_ranks_in_one_process_are_refused(project):
    with pytest.raises(ValueError, match="cluster.ranks=2 needs as many processes, and cluster=inprocess is one"):
        make_plan(load("tiny", ("cluster.ranks=2",)), Store(project.store))


def test_the_number_of_ranks_changes_no_run_id(project):
    store = Store(project.store)
    names = [[r.run_id for r in make_plan(load("tiny", ("cluster=local", f"cluster.ranks={n}")), store).runs] for n in (1, 4)]
    assert names[0] == names[1]
