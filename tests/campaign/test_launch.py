import pytest

from saescale import identity
from saescale.campaign import launch as launching
from saescale.campaign import local
from saescale.campaign.choice import Choice
from saescale.campaign.launch import Outcome, launch
from saescale.campaign.plan import make_plan
from saescale.campaign.status import RunState, states
from saescale.campaign.sweep import load
from saescale.records import record
from saescale.records.lock import Lock
from saescale.records.store import Store, read_json, read_lines, write_json


class Silent:
    def stage(self, *_):
        pass


class Workers:
    """In place of the pool: every training job leaves the records of its runs; `broken` leaves none and says so."""

    def __init__(self, store):
        self.store, self.jobs, self.broken = store, [], False

    def __call__(self, jobs, _workers, stage, _progress):
        self.jobs += [(stage, read_json(j / "job.json")) for j in jobs]
        if self.broken:
            return ["the job stopped."]
        for job in jobs if stage == "train" else ():
            for run_id in read_json(job / "job.json")["runs"]:
                science = read_json(self.store.run_dir(run_id) / "config.json")["science"]
                record.write_result(self.store.run_dir(run_id), {
                    "schema": 1, "run_id": run_id, "trunk_id": "t", "fingerprint": identity.fingerprint(science),
                    "science": science, "metrics": {}, "flops": {}, "n_tokens": 1})
        return []

    def trained(self):
        return sorted(r for stage, content in self.jobs if stage == "train" for r in content["runs"])


@pytest.fixture
def store(project):
    return Store(project.store)


@pytest.fixture
def workers(store, monkeypatch):
    fake = Workers(store)
    monkeypatch.setattr(local, "run_in_process", fake)
    monkeypatch.setattr(local, "run_pool", fake)
    return fake


def planned(store, *overrides):
    return make_plan(load("tiny", overrides), store)


def test_after_ctrl_c_each_worker_leaves_how_it_ended_and_why_says_stopped(store, monkeypatch):
    """A worker that was let save is no worker that was killed with its watcher."""
    job = store.job_dir("train-1")
    write_json(job / "job.json", {"stage": "report", "arguments": ["--help"], "execution": {"threads": 1}})

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "_show", interrupted)
    monkeypatch.setattr(local.Worker, "send_signal", lambda worker, _: worker.ranks[0].process.kill())
    with pytest.raises(KeyboardInterrupt):
        local.run_pool([job], 1, "train", Silent())
    assert read_json(job / "attempts" / "0" / "exit.json")["asked"] == "stop"


def test_a_launch_trains_every_run_once_and_a_second_starts_nothing(store, workers):
    plan = planned(store)
    first, second = launch(plan, store, Silent()), launch(plan, store, Silent())
    assert (first.started, first.exit_code, second.started, second.exit_code) == (8, 0, 0, 0)
    assert workers.trained() == sorted(r.run_id for r in plan.runs)


@pytest.mark.parametrize("more", ["seed=0,1,2", "budget.flops=4e8,8e8,1.6e9", "sae.n_latents=16,32,64"])
def test_a_finished_sweep_trains_only_what_is_new(store, workers, more):
    launch(planned(store), store, Silent())
    old = set(workers.trained())
    workers.jobs.clear()
    outcome = launch(planned(store, more), store, Silent())
    assert outcome.started == len(workers.trained()) == 4 and not old & set(workers.trained())


def test_the_harvest_comes_first_and_covers_each_shard_once(store, workers):
    launch(planned(store, "cluster.workers=3"), store, Silent())
    assert [s for s, _ in workers.jobs] == sorted((s for s, _ in workers.jobs), key=["harvest", "train"].index)
    shards = [tuple(s) for stage, c in workers.jobs if stage == "harvest" for s in c["shards"]]
    assert len(shards) == len(set(shards)) >= 2 and {split for split, _ in shards} == {"train", "held_out"}


def test_workers_of_this_machine_fill_the_cache_before_they_train_where_as_many_train_as_would_harvest(store, workers):
    launch(planned(store, "cluster=local", "cluster.workers=2"), store, Silent())
    assert [s for s, _ in workers.jobs] == ["train", "train"]
    one, other = (content["shards"] for _, content in workers.jobs)
    assert one == other and {split for split, _ in one} == {"train", "held_out"}


def test_a_fleet_of_fewer_workers_than_would_harvest_is_harvested_for(store, workers):
    launch(planned(store, "cluster=local", "cluster.workers=5"), store, Silent())
    assert {s for s, _ in workers.jobs} == {"harvest", "train"}
    assert not [content for stage, content in workers.jobs if stage == "train" and "shards" in content]


def test_runs_of_one_trunk_go_to_one_job(store, workers):
    plan = planned(store, "cluster.workers=2")
    launch(plan, store, Silent())
    trunk = {r.run_id: r.trunk_id for r in plan.runs}
    jobs = [{trunk[r] for r in c["runs"]} for stage, c in workers.jobs if stage == "train"]
    assert len(jobs) == 2 and not jobs[0] & jobs[1]


def test_a_job_that_stopped_is_reported_and_the_next_launch_goes_on(store, workers):
    workers.broken = True
    stopped = launch(planned(store), store, Silent())
    assert stopped.exit_code == 3 and stopped.messages == ("the job stopped.",)
    assert [s for s, _ in workers.jobs] == ["harvest"]  # no training on half a harvest
    workers.broken = False
    assert launch(planned(store), store, Silent()).exit_code == 0


def test_a_failed_run_is_trained_again_only_on_request(store, workers):
    plan = planned(store)
    bad = plan.runs[0].run_id
    launch(plan, store, Silent())
    (store.run_dir(bad) / "result.json").unlink()
    write_json(store.run_dir(bad) / "status.json", {"state": "failed", "reason": "diverged"})
    workers.jobs.clear()
    assert launch(plan, store, Silent()).exit_code == 3 and workers.jobs == []
    assert launch(plan, store, Silent(), Choice(states=("failed",))).exit_code == 0 and workers.trained() == [bad]


def test_a_run_that_is_running_elsewhere_is_left_to_it(store, workers):
    plan = planned(store)
    mine = plan.runs[0]
    launch(plan, store, Silent())
    (store.run_dir(mine.run_id) / "result.json").unlink()
    write_json(store.run_dir(mine.run_id) / "status.json", {"state": "running", "tokens": 0, "n_tokens": 1})
    Lock(store.trunk_dir(mine.trunk_id) / "lock").acquire()
    workers.jobs.clear()
    assert launch(plan, store, Silent()).exit_code == 4 and workers.jobs == []


def test_a_damaged_record_stops_the_launch_and_nothing_is_started(store, workers):
    plan = planned(store)
    store.run_dir(plan.runs[3].run_id).mkdir(parents=True)
    (store.run_dir(plan.runs[3].run_id) / "result.json").write_text('{"schema": 1, "run')
    with pytest.raises(ValueError, match=r"result\.json is damaged .* Nothing was started"):
        launch(plan, store, Silent())
    assert workers.jobs == [] and not (store.run_dir(plan.runs[0].run_id) / "config.json").exists()


def test_every_submission_is_written_down_before_it_runs(store, workers):
    workers.broken = True
    launch(planned(store), store, Silent())
    line, = read_lines(store.sweep_dir("tiny") / "submissions.jsonl")
    assert line["stage"] == "harvest" and line["jobs"] and line["plan_hash"] == planned(store).plan_hash


def test_a_pool_worker_that_ends_badly_is_told_in_one_sentence(store, monkeypatch):
    monkeypatch.setattr(local, "JOB_MODULE", "saescale.no_such_room")
    job = launching.make_job(store, {"stage": "train", "execution": {"threads": 1}})
    problem, = local.run_pool([job], 1, "train", Silent())
    assert f"job {job.name} stopped with exit code 1" in problem and "no_such_room" in problem and "\n" not in problem
    assert read_json(job / "attempts" / "0" / "exit.json")["exit_code"] == 1
    assert "no_such_room" in (job / "attempts" / "0" / "stderr").read_text()


@pytest.mark.parametrize(("found", "code"), [
    ("done", 0), ("running", 4), ("stopped", 3), ("failed", 3), ("new", 4), ("damaged", 3)])
def test_the_exit_code_of_an_outcome(found, code):
    assert Outcome(1, {"a": RunState("done"), "b": RunState(found)}).exit_code == code


def test_runs_not_begun_because_a_job_stopped_are_told_from_those_nobody_asked_for():
    states = {"a": RunState("done"), "b": RunState("new")}
    assert (Outcome(1, states).exit_code, Outcome(1, states, ("job x stopped.",)).exit_code) == (4, 3)


def test_states_of_a_plan_are_those_of_its_runs(store):
    plan = planned(store)
    found = states(plan.runs, store)
    assert list(found) == [r.run_id for r in plan.runs] and {s.state for s in found.values()} == {"new"}


def test_a_job_that_has_not_begun_counts_as_the_mean_of_those_that_have(tmp_path):
    shown, jobs = [], [tmp_path / name for name in "abc"]
    for job, done in zip(jobs[:2], (30, 10), strict=True):
        write_json(job / "status.json", {"done": done, "total": 100})

    class Shown:
        def stage(self, *told):
            shown.append(told)

    local._show(jobs, "train", Shown())
    assert shown == [("train", 40.0, 300.0, "")]


def test_a_job_that_still_fills_its_cache_is_shown_as_a_harvest(tmp_path):
    shown, jobs = [], [tmp_path / name for name in "ab"]
    write_json(jobs[0] / "status.json", {"done": 5, "total": 1000})
    write_json(jobs[1] / "status.json", {"done": 30, "total": 40, "note": "harvest: train 1 of 2", "harvesting": True})

    class Shown:
        def stage(self, *told):
            shown.append(told)

    local._show(jobs, "train", Shown())
    assert shown == [("harvest", 30, 40.0, "harvest: train 1 of 2")]
