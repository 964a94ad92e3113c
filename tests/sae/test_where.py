"""Which device a job takes, and what is refused; there is no GPU here, so torch is told what to say of one."""

import pytest
import torch

from saescale.sae import kernels
from saescale.sae.device import CPU, Stopwatch, chosen, described, kernels_for, repeatable


def with_gpus(monkeypatch, n):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)


@pytest.mark.parametrize("wanted, n, rank, device", [
    ("auto", 0, "0", "cpu"), ("cpu", 2, "1", "cpu"), ("auto", 1, "0", "cuda:0"), ("cuda", 8, "5", "cuda:5"),
    ("cuda", 1, "3", "cuda:0")], ids=["no GPU", "not wanted", "one", "the sixth of eight", "the only one a task sees"])
def test_a_process_takes_the_gpu_of_its_number_among_those_it_sees(monkeypatch, wanted, n, rank, device):
    with_gpus(monkeypatch, n)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert chosen(wanted) == torch.device(device)


def test_a_gpu_that_is_asked_for_and_is_not_there_is_refused_in_one_sentence(monkeypatch):
    with_gpus(monkeypatch, 0)
    with pytest.raises(ValueError, match=r"cluster.device=cuda, but .* on .*: ask for a GPU .*cluster.device=auto or cpu\.$"):
        chosen("cuda")


def test_kernels_named_for_a_processor_stand_for_auto_on_a_gpu_and_those_of_a_gpu_stay(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda _: True)
    cuda = torch.device("cuda")
    assert [kernels_for(name, cuda) for name in ("cpu", "numba", "auto", "torch")] == ["triton", "triton", "triton", "torch"]
    assert [kernels_for(name, CPU) for name in ("cpu", "numba", "torch")] == ["cpu", "numba", "torch"]


def test_on_a_processor_nothing_is_made_repeatable_and_the_record_says_cpu():
    with repeatable(CPU):
        assert not torch.are_deterministic_algorithms_enabled()
    assert described(CPU) == {"device": "cpu", "cuda": None, "device_gb": None}


def test_sums_on_a_gpu_are_made_repeatable_and_left_as_they_were():
    with repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_watch_adds_its_spans_and_starts_anew_once_read(monkeypatch):
    times = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("saescale.sae.device.time.perf_counter", lambda: next(times))
    watch = Stopwatch(CPU)
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.taken() == 2.5 and watch.taken() == 0
