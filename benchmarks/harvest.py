"""Harvesting beside the language model alone: python -m benchmarks.harvest

Tokens per second of one process up to a hook at two thirds of the depth, on random weights of real shapes: transformer-lens'
forward with stop_at_layer, plain transformers with a hook that stops the forward, and a harvest of a whole shard (one hook, then
three): forward, rounding to bfloat16, shards with checksums synced to disk. The contestants take turns, so that a busy moment of
the machine falls on all; each tells its best round. Peers must keep up: the last lines say by how much.
"""

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.train_step import RESULTS, cpu_name, file_name
from saescale.activations import sites
from saescale.activations.cache import harvest
from saescale.activations.folder import BUNDLED
from saescale.activations.live import LiveSource
from saescale.activations.lm import Bridged, LanguageModel
from saescale.activations.shards import SHARD_BATCHES
from saescale.activations.tokens import TokenSplit

SHAPES = {  # model_type, settings, sequences, n_ctx
    "bundled": (None, {}, 32, 128),
    "gpt2-small": ("gpt2", {}, 4, 128),
    "pythia-70m": ("gpt_neox", {"vocab_size": 50304, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
                                "intermediate_size": 2048}, 8, 128),
}
BATCHES = SHARD_BATCHES  # forward batches of one round: a shard is synced to disk once, however many it holds


def model_folder(name: str, scratch: Path) -> Path:
    """The bundled model, or random weights of a real model's shape with the bundled tokenizer."""
    family, settings, _, _ = SHAPES[name]
    if family is None:
        return BUNDLED
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).save_pretrained(scratch / name)
    for file in BUNDLED.glob("tokenizer*"):
        shutil.copy(file, scratch / name)
    return scratch / name


def stopped_forward(folder: Path, hook: str, attention: str, dtype: torch.dtype, device: str) -> Callable[[torch.Tensor], None]:
    """What anyone would write: a forward hook that raises."""
    from transformers import AutoModelForCausalLM

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval().to(device)
    layout = sites.LAYOUTS[model.config.model_type]
    model.get_submodule(layout.blocks)[int(hook.split(".")[1])].register_forward_hook(stop)

    @torch.no_grad()
    def run(ids: torch.Tensor) -> None:
        try:
            model(ids, use_cache=False)
        except Stop:
            return

    return run


def contestants(name: str, dtype: str, device: str, scratch: Path) -> dict[str, Callable[[], None]]:
    folder = model_folder(name, scratch)
    _, _, n_sequences, n_ctx = SHAPES[name]
    n_sequences *= 32 if device != "cpu" else 1
    n_layers = {"bundled": 4, "gpt2-small": 12, "pythia-70m": 6}[name]
    last = n_layers * 2 // 3 - 1
    hook, hooks = f"blocks.{last}.hook_resid_post", [f"blocks.{last}.{site}" for site in ("hook_resid_post", "hook_mlp_out")]
    hooks.append(f"blocks.{last - 1}.hook_resid_post")
    ids = torch.randint(1, 1024, (BATCHES * n_sequences, n_ctx), generator=torch.Generator().manual_seed(0))
    lengths = np.full(len(ids), n_ctx, np.int32)
    tokens = TokenSplit(ids.numpy().astype(np.int32), lengths, np.zeros_like(lengths), n_sequences)
    batches = [ids[i:i + n_sequences].to(device) for i in range(0, len(ids), n_sequences)]
    kind = getattr(torch, dtype)
    bridge = Bridged(folder, {"dtype": kind, "attn_implementation": "eager", "device": device})

    @torch.no_grad()
    def bridged() -> None:
        for batch in batches:
            bridge.at(batch, [hook])

    def whole(attention: str, wanted: list[str]) -> Callable[[], None]:
        source = LiveSource(LanguageModel(folder, hook, dtype, device, attention), tokens, "bfloat16")
        folders = {h: scratch / f"{name}-{attention}-{len(wanted)}-{i}" for i, h in enumerate(wanted)}
        return lambda: [None for _ in harvest(folders, "train", source, [0])] and None

    made = {"transformer-lens, stop_at_layer, eager": bridged}
    for attention in ("eager", "sdpa"):
        forward = stopped_forward(folder, hook, attention, kind, device)
        made[f"transformers, stopped by a hook, {attention}"] = lambda forward=forward: [forward(b) for b in batches] and None
        made[f"harvest of one hook, {attention}"] = whole(attention, [hook])
    made["harvest of three hooks, sdpa"] = whole("sdpa", hooks)
    return made


def measure(name: str, dtype: str, device: str, rounds: int) -> dict[str, float]:
    """Tokens per second of each, the best of the rounds."""
    with tempfile.TemporaryDirectory() as scratch:
        made = contestants(name, dtype, device, Path(scratch))
        _, _, n_sequences, n_ctx = SHAPES[name]
        n_tokens = BATCHES * n_sequences * n_ctx * (32 if device != "cpu" else 1)
        best = dict.fromkeys(made, float("inf"))
        for _ in range(rounds + 1):
            for what, run in made.items():
                if device != "cpu":
                    torch.cuda.synchronize()
                begun = time.perf_counter()
                run()
                if device != "cpu":
                    torch.cuda.synchronize()
                best[what] = min(best[what], time.perf_counter() - begun)
    return {what: n_tokens / seconds for what, seconds in best.items()}


def ratios(found: dict[str, float]) -> dict[str, float]:
    bridge, eager, sdpa = (found[k] for k in ("transformer-lens, stop_at_layer, eager", "transformers, stopped by a hook, eager",
                                              "transformers, stopped by a hook, sdpa"))
    return {"eager harvest / transformer-lens": found["harvest of one hook, eager"] / bridge,
            "eager harvest / transformers": found["harvest of one hook, eager"] / eager,
            "sdpa harvest / transformers": found["harvest of one hook, sdpa"] / sdpa,
            "three hooks / one": found["harvest of three hooks, sdpa"] / found["harvest of one hook, sdpa"]}


def table(results: list[dict]) -> list[str]:
    lines = ["| model | dtype | what | tokens/s |", "|---|---|---|---|"]
    lines += [f"| {r['model']} | {r['dtype']} | {what} | {rate:,.0f} |"
              for r in results for what, rate in r["tokens_per_s"].items()]
    return [*lines, "", "| model | dtype | " + " | ".join(results[0]["ratios"]) + " |", "|---|---|" + "---|" * 4,
            *(f"| {r['model']} | {r['dtype']} | " + " | ".join(f"{v:.2f}" for v in r["ratios"].values()) + " |" for r in results)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chip = cpu_name() if asked.device == "cpu" else torch.cuda.get_device_name()
    results = []
    for name in asked.models:
        for dtype in asked.dtypes:
            found = measure(name, dtype, asked.device, asked.rounds)
            results.append({"model": name, "dtype": dtype, "tokens_per_s": found, "ratios": ratios(found)})
            print(json.dumps(results[-1], indent=1), flush=True)
    said = {"chip": chip, "torch": torch.__version__, "python": platform.python_version(), "results": results}
    target = asked.out / (file_name("harvest", 1) if asked.device == "cpu" else "harvest-" + chip.lower().replace(" ", "-"))
    asked.out.mkdir(exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
    where = f"{chip}{', one thread' if asked.device == 'cpu' else ''}; torch {torch.__version__}"
    head = f"# Harvest\n\n{where}; the best of {asked.rounds + 1} rounds of each, taking turns.\n\n"
    target.with_suffix(".md").write_text(head + "\n".join(table(results)) + "\n")


if __name__ == "__main__":
    main()
