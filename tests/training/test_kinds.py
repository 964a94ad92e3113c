"""Every kind of SAE through a whole job: fleets, trunks, records."""

import json

import pytest

from saescale.sae import export

KEPT = ("sae=topk,batchtopk,matryoshka", "sae.n_latents=40", "sae.k=4")
SOLVED = ("sae=relu_l1,jumprelu,jumprelu_tanh,gated", "sae.n_latents=40", "sae.target_l0=6", "sae.sparsity_coeff=0.5",
          "train.sparsity_warmup_tokens=6400")


def only(overrides, kind):
    return (f"sae={kind}", *overrides[1:])


@pytest.mark.parametrize("overrides", [KEPT, SOLVED], ids=["kinds that keep k", "kinds with a penalty"])
def test_a_run_of_any_kind_in_a_fleet_of_others_is_the_run_alone_bit_for_bit(bed, overrides):
    both = (*overrides, "sae.warmup=tokens", "train.n_tokens=19200")
    assert bed.launch(*both).exit_code == 0
    found, alone = bed.left_by(bed.plan(*both)), bed.another("alone")
    assert len(found) == len(overrides[0].split(","))
    assert len(list((bed.store.root / "jobs").glob("train-*"))) == 1
    for kind in overrides[0].removeprefix("sae=").split(","):
        one = only(both, kind)
        alone.launch(*one)
        (run_id, left), = alone.left_by(alone.plan(*one)).items()
        assert left == found[run_id], kind


def results(bed, *overrides):
    return [json.loads((bed.store.run_dir(r.run_id) / "result.json").read_text()) for r in bed.plan(*overrides).runs]


def test_the_weight_a_run_was_solved_for_is_in_its_record_and_its_objective_is_the_squared_error(bed):
    one = (*only(SOLVED, "jumprelu"), "sae.bandwidth=0.5", "sae.warmup=tokens", "train.n_tokens=38400")
    bed.launch(*one)
    (result,) = results(bed, *one)
    metrics = result["metrics"]
    assert metrics["target_l0"] == 6 and metrics["final_sparsity_coeff"] not in (0.5, None)
    assert metrics["objective"] == pytest.approx(metrics["fvu"], rel=1e-6)
    assert abs(metrics["l0"] / 6 - 1) < 0.35  # 300 steps are few
    assert result["flops"]["flops_measured"] > 0


def test_a_ramp_over_the_horizon_trains_each_horizon_alone(bed):
    ramped = (*only(SOLVED[:2], "jumprelu_tanh"), "sae.warmup=horizon")
    plan = bed.plan(*ramped)
    assert len({r.trunk_id for r in plan.runs}) == len(plan.runs) == 2
    assert bed.launch(*ramped).exit_code == 0


def test_a_batchtopk_run_is_measured_and_exported_with_its_threshold(bed):
    one = (*only(KEPT, "batchtopk"), "train.n_tokens=38400")
    bed.launch(*one)
    (run,) = bed.plan(*one).runs
    folder = bed.store.run_dir(run.run_id)
    cfg = json.loads((folder / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["metadata"]["training_architecture"]) == ("jumprelu", "batchtopk")
    assert float(export.load(folder).own["threshold"]) > 0
    (result,) = results(bed, *one)
    assert result["metrics"]["l0"] != 4 and abs(result["metrics"]["l0"] / 4 - 1) < 0.25
