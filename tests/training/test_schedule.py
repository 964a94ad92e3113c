import pytest

from saescale.training.schedule import Schedule

TRAIN = {"n_tokens": 1000, "batch_tokens": 10, "lr": 0.2, "lr_warmup_tokens": 40, "lr_decay_fraction": 0.2,
         "sparsity_warmup_tokens": 200}


def test_the_warm_up_is_linear_in_tokens_and_full_at_its_last_step():
    s = Schedule.of(TRAIN)
    assert [s.trunk_lr(i) for i in range(6)] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])


def test_the_last_fifth_of_the_steps_decays_linearly_and_the_last_step_still_learns():
    s = Schedule.of(TRAIN)
    assert (s.steps, s.fork_step) == (100, 80)
    assert [s.branch_lr(i) for i in (0, 79, 80, 81, 90, 99)] == pytest.approx([0.05, 0.2, 0.2, 0.19, 0.1, 0.01])
    assert s.trunk_lr(99) == 0.2


def test_runs_that_differ_in_horizon_have_one_schedule_up_to_the_first_fork():
    short, long = Schedule.of(TRAIN), Schedule.of({**TRAIN, "n_tokens": 3000})
    assert long.fork_step == 240
    assert all(short.branch_lr(i) == long.branch_lr(i) and short.sparsity_scale(i) == long.sparsity_scale(i) for i in range(80))


def test_a_horizon_shorter_than_its_warm_up_decays_what_the_warm_up_reached():
    s = Schedule.of({**TRAIN, "n_tokens": 100, "lr_warmup_tokens": 200})
    assert s.fork_step == 8
    assert [s.branch_lr(i) for i in (7, 8, 9)] == pytest.approx([0.08, 0.09, 0.05])


def test_no_decay_and_no_warm_up_are_a_constant():
    s = Schedule.of({**TRAIN, "lr_decay_fraction": 0.0, "lr_warmup_tokens": 0, "sparsity_warmup_tokens": 0})
    assert s.fork_step == s.steps == 100
    assert {s.branch_lr(i) for i in range(100)} == {0.2} and s.sparsity_scale(0) == 1.0


def test_the_sparsity_ramp_is_linear_in_tokens():
    s = Schedule.of(TRAIN)
    assert [s.sparsity_scale(i) for i in (0, 9, 19, 20, 99)] == pytest.approx([0.05, 0.5, 1, 1, 1])
