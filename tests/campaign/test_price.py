import dataclasses
import time

import pytest

from saescale.campaign import lm_cost, price, progress
from saescale.campaign.plan import PlannedRun, make_plan
from saescale.campaign.status import RunState
from saescale.campaign.sweep import load
from saescale.records.store import Store
from saescale.training.schedule import Schedule


def run(steps, trunk="t", seed=0, cache="c", kind="topk", decay=0.2):
    science = {"lm": {"d_in": 10}, "data": {"held_out_fraction": 0.2, "activation_dtype": "bfloat16"},
               "sae": {"n_latents": 100, "kind": kind},
               "train": {"n_tokens": steps * 8, "batch_tokens": 8, "lr": 1.0, "lr_warmup_tokens": 0, "lr_decay_fraction": decay,
                         "sparsity_warmup_tokens": 0, "seed": seed},
               "eval": {"n_tokens": 1000, "ce_tokens": 500}}
    return PlannedRun(f"{trunk}-{steps}", trunk, ("g",), None, science, {"cache_key": cache})


def ramped(steps, trunk="t"):
    made = run(steps, trunk, kind="jumprelu_tanh")
    made.science["train"]["sparsity_warmup_tokens"] = steps * 8
    return made


def test_one_run_costs_its_own_steps():
    assert price.trunk_steps([run(100)]) == 100


def test_branches_share_their_trunk_up_to_their_forks():
    # forks at 80, 160, 400: a trunk of 400 steps, and tails of 20, 40 and 100
    assert price.trunk_steps([run(100), run(200), run(500)]) == 400 + 20 + 40 + 100


def test_runs_without_decay_cost_only_the_longest():
    assert price.trunk_steps([run(100, decay=0.0), run(200, decay=0.0)]) == 200


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 124, 993, 7947])
def test_the_priced_fork_is_the_fork_of_training(steps):
    assert price.fork_step(run(steps)) == Schedule.of(run(steps).science["train"]).fork_step


def test_trunks_are_not_shared_across_ids():
    found = price.price([run(100), run(200), run(100, trunk="u")])
    assert (found.tokens, found.tokens_alone) == ((160 + 20 + 40 + 100) * 8, 400 * 8)
    assert found.flops == 12 * 10 * 100 * 400 * 8
    assert found.seconds < found.seconds_alone


def test_a_run_ends_with_its_held_out_set_and_the_whole_language_model_on_it(project):
    first = make_plan(load("tiny"), Store(project.store)).runs[0]
    synthetic = dataclasses.replace(first, execution=first.execution | {"lm_path": None})
    ended, alone = price.end_seconds(first), price.end_seconds(synthetic)
    assert ended - alone == pytest.approx(lm_cost.losses_seconds(first)) and alone > price.EVALUATE_S
    first.science["eval"].update(n_tokens=2 * first.science["eval"]["n_tokens"], ce_tokens=2 * first.science["eval"]["ce_tokens"])
    assert price.end_seconds(first) - price.EVALUATE_S == pytest.approx(2 * (ended - price.EVALUATE_S))
    fast = 10 * first.science["train"]["batch_tokens"] / price.estimated_step_seconds(first)
    probed = price.end_seconds(dataclasses.replace(first, tokens_per_s=fast))
    assert probed - price.EVALUATE_S == pytest.approx(0.2 * (ended - price.EVALUATE_S))


def test_the_eta_of_a_sweep_holds_the_evaluation_of_what_is_not_done(project):
    runs = make_plan(load("tiny"), Store(project.store)).runs[:4]
    said = {"tokens": 100, "n_tokens": 200, "tokens_per_s": 1e12, "heartbeat": time.time()}
    found = {r.run_id: RunState("running", "", said | {"job": f"job-{i % 2}"}) for i, r in enumerate(runs)}
    found[runs[0].run_id] = RunState("done")
    assert progress.of_sweep(runs, found).eta_s == pytest.approx(sum(map(price.end_seconds, runs[1:])) / 2, rel=1e-3)


def test_activations_are_counted_once_per_cache():
    # 8,000 train tokens and a fifth held out are 10,000 rows of 10 bfloat16
    assert price.activations_gb([run(100), run(200), run(100, cache="d")], 8000) == pytest.approx(2 * 10_000 * 10 * 2 / 1e9)


def test_nothing_to_run_costs_nothing():
    assert price.price([]).seconds == 0 and price.activations_gb([], 8000) == 0


def test_live_and_synthetic_activations_need_no_disk():
    live = dataclasses.replace(run(100), execution={"cache_key": "c", "source": "live"})
    assert price.activations_gb([live], 8000) == 0


@pytest.mark.parametrize(("runs", "said"), [
    ([run(100), run(200), run(500)], "3 runs share 1 trunk"),
    ([run(100), run(200), run(100, trunk="u")],
     "2 runs share 1 trunk; alone: 1 with the only horizon of their trunk"),
    ([run(10, decay=0.99), run(20, decay=0.99)], "alone: 2 that decay from their first step (train.lr_decay_fraction)"),
    ([ramped(100), ramped(200, trunk="u"), run(100, trunk="v")],
     "alone: 1 with the only horizon of their trunk, 2 whose sparsity ramp lasts the horizon (sae.warmup)"),
    ([], "")])
def test_the_plan_says_who_shares_a_trunk_and_why_the_others_train_alone(runs, said):
    assert price.sharing(runs) == said
