"""The ends of a run: what it starts from, and how it becomes a record."""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import saescale
from saescale import flops, identity
from saescale.activations.folder import LMFolder
from saescale.activations.inputs import Inputs
from saescale.activations.lm_shape import shape_of
from saescale.activations.stream import Stream
from saescale.kinds import KINDS
from saescale.measure.evaluate import HeldOut, evaluate
from saescale.measure.recovery import recovery
from saescale.records import record
from saescale.records.store import read_json, write_bytes, write_json
from saescale.sae import export
from saescale.sae.device import chosen, described, repeatable
from saescale.sae.entries import SPARSE_BELOW
from saescale.sae.ranks import ALONE, Ranks
from saescale.sae.spec import SAESpec
from saescale.sae.step import Trainable
from saescale.sources import is_synthetic
from saescale.training.checkpoint import TRUNK
from saescale.training.fleet import Trunk
from saescale.training.parallel import apart, forwarded_together

if TYPE_CHECKING:
    from saescale.training.train import Job

STEP_LATENTS = 1500  # of a token, what does not depend on the dictionary's size costs as much as so many latents


@dataclass(frozen=True)
class Bench(Inputs):
    """What every run of a fleet shares: the stream it trains on and the held-out set it is measured on.

    `ranks` read the same batches. Live ones are computed once: each rank forwards its share.
    """

    ranks: Ranks = ALONE

    @cached_property
    def device(self) -> torch.device:
        """Where SAEs train. Raises ValueError when that is a GPU and there is none."""
        return chosen(self.execution.get("device", "cpu"))

    @cached_property
    def stream(self) -> Stream:
        load = forwarded_together(self.train_source, apart(self.ranks)) if self.execution.get("source") == "live" else None
        return Stream(self.train_source, self.science["data"]["data_seed"], self.scale, load, self.repeats)

    @cached_property
    def held_out(self) -> HeldOut:
        source = self.source("held_out")
        tokens = source if is_synthetic(self.science) else self.corpus.held_out
        return HeldOut(tokens, source, self.lm, self.scale, self.science["eval"])


    @property
    def lm_parameters(self) -> int:
        """Counted from config.json, without opening the model; 0 for synthetic activations and families not known."""
        shape = None if is_synthetic(self.science) else shape_of(LMFolder(Path(self.execution["lm_path"])).config)
        return shape.n_parameters if shape else 0


def fresh_trainable(trunk: Trunk, bench: Bench, kernels: str) -> Trainable:
    science = trunk.science
    return Trainable.create(SAESpec.of(science), science["train"]["seed"], bench.sample, kernels, ranks=trunk.ranks,
                            device=bench.device)


def mark(job: Job, run_id: str, trunk: Trunk) -> None:
    """status.json of a run that is under way; its speed is what this job made of it."""
    if not trunk.ranks.first:
        return
    member = trunk.live.get(run_id) or trunk.live.get(TRUNK)
    tokens, now = (member.step if member else 0) * trunk.science["train"]["batch_tokens"], time.time()
    from_tokens, since = job.began.setdefault(run_id, (tokens, now))
    write_json(job.store.run_dir(run_id) / record.STATUS, {
        "state": "running", "job": job.folder.name, "heartbeat": now, "host": platform.node(),
        "tokens_per_s": (tokens - from_tokens) / (now - since) if now > since else None, "tokens": tokens,
        "n_tokens": trunk.runs[run_id].steps * trunk.science["train"]["batch_tokens"], "forked": run_id in trunk.live})


def mark_failed(job: Job, run_id: str, reason: str) -> None:
    write_json(job.store.run_dir(run_id) / record.STATUS, {"state": "failed", "reason": reason, "job": job.folder.name,
                                                           "heartbeat": time.time()})


def ending_work(science: Mapping[str, Any], bench: Bench) -> float:
    """What finish_run costs, in latent-tokens of training: held-out tokens, and the language model's losses, whose parameters
    count as latents of d_in weights."""
    losses = bench.lm_parameters / science["lm"]["d_in"] * (science["eval"]["ce_tokens"] or 0)
    return science["eval"]["n_tokens"] * (STEP_LATENTS + science["sae"]["n_latents"]) * flops.EVALUATED_SHARE + losses


def finish_run(job: Job, run_id: str, trunk: Trunk, bench: Bench) -> None:
    """Evaluate a branch at its end, export it, and write its record last. Of several ranks the first does, with the whole SAE."""
    member = trunk.live[run_id]
    sae = member.trainable.whole_sae()
    if sae is None:
        return
    run_dir = job.store.run_dir(run_id)
    config = read_json(run_dir / record.CONFIG)
    science = config["science"]
    with repeatable(sae.W_dec.device):
        numbers, firing = evaluate(sae, bench.held_out)
    sae = sae.to("cpu")
    numbers |= solved(science, member.trainable)
    if is_synthetic(science):
        numbers |= recovery(sae, science)
    export.save(sae, bench.scale, run_dir, trained_on(science))
    for name, values in ((record.FIRST_FIRED, firing.first), (record.FIRE_COUNTS, firing.count)):
        buffer = io.BytesIO()
        np.save(buffer, values.numpy(), allow_pickle=False)
        write_bytes(run_dir / name, buffer.getvalue())
    d_in, sae, n_tokens = science["lm"]["d_in"], science["sae"], science["train"]["n_tokens"]
    record.write_result(run_dir, {
        "schema": record.SCHEMA, "run_id": run_id, "trunk_id": trunk.trunk_id, "science": science,
        "fingerprint": identity.fingerprint(science), "metrics": numbers, "n_tokens": n_tokens, "steps": member.step,
        "wall_s": round(member.seconds, 3),
        "flops": {"flops_dense": flops.flops_dense(d_in, sae["n_latents"], n_tokens),
                  "flops_measured": flops.flops_executed(sae["kind"], d_in, sae["n_latents"], n_tokens,
                                                           pairs_worked_on(member.trainable, n_tokens)),
                  "flops_lm": bench.lm and flops.flops_lm_forward(bench.lm.n_parameters, n_tokens)},
        "environment": environment(member.trainable), "finished": time.time()})
    write_json(run_dir / record.STATUS, {"state": "done", "job": job.folder.name, "heartbeat": time.time(),
                                         "tokens": n_tokens, "n_tokens": n_tokens})


def trained_on(science: dict[str, Any]) -> dict[str, Any]:
    """What the exported SAE says of its activations, in SAELens' words; a model by its name on the hub, or its files' hash."""
    name, commit = (science["lm"]["revision"] or "synthetic").rpartition("@")[::2]
    data = science["data"]
    return {"hook_name": science["lm"]["hook_name"], "model_name": name or commit[:12], "context_size": data.get("n_ctx"),
            "prepend_bos": data.get("prepend_bos", True)}


def solved(science: dict[str, Any], trainable: Trainable) -> dict[str, float]:
    """The wanted l0 and the penalty's weight at the end, for a run whose weight was solved for."""
    target = science["sae"].get("target_l0")
    return {} if target is None else {"target_l0": target, "final_sparsity_coeff": float(trainable.sae.own["sparsity_coeff"])}


def pairs_worked_on(trainable: Trainable, n_tokens: int) -> float:
    """(token, latent) pairs of the whole training: counted where the kind counts them, else as its last l0 suggests."""
    counted, l0, n_latents = trainable.memory.own.get("entries"), float(trainable.memory.last_l0), trainable.spec.n_latents
    if counted is not None:
        return float(counted)
    dense = not KINDS[trainable.spec.kind].keeps_k and l0 >= SPARSE_BELOW * n_latents
    return n_tokens * (n_latents if dense else l0)


def environment(trainable: Trainable) -> dict[str, Any]:
    """What "bit for bit" is bound to: instruction set, threads, versions, and the ranks its latents were dealt over."""
    kernels = trainable.backend
    return {"saescale": saescale.__version__, "torch": torch.__version__, "python": platform.python_version(),
            "machine": platform.machine(), "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(), "kernels": kernels, "ranks": trainable.ranks.size,
            **{name: version(name) if kernels == name else None for name in ("numba", "triton")}, **described(trainable.device)}
