"""Labels a made-up dictionary of a million latents for a thousand concepts: `python -m benchmarks.million_latents` gives seconds
and peak memory of counting and choosing. The activations are drawn, so the dictionary's own matmul is not in it."""

import resource
import time
from types import SimpleNamespace

import numpy as np
import torch

from saescale.measure.concepts import Dictionary, label
from saescale.measure.firings import Concepts
from saescale.measure.places import Places

N_LATENTS, N_NAMES, PER_HALF, AT_RANDOM, L0 = 1_000_000, 1_000, 50, 50_000, 20


def main() -> None:
    name = np.concatenate([np.repeat(np.arange(N_NAMES), 2 * PER_HALF), np.full(2 * AT_RANDOM, -1)]).astype(np.int32)
    n = len(name)
    places = Places(np.arange(n), np.arange(n) % 2 == 0, name, np.full(n, -1, np.int32), name < 0,
                    np.full((2, N_NAMES), PER_HALF), np.array([10**7, 10**7]), np.full(N_NAMES, -1, np.int32))
    concepts = Concepts(np.arange(N_NAMES, dtype=np.int32), (np.arange(N_NAMES) % 10).astype(np.int32))

    def encode(rows: torch.Tensor) -> SimpleNamespace:
        rng = np.random.default_rng(int(rows[0, 0]))
        latents = rng.integers(0, N_LATENTS, (len(rows), L0))
        held = name[rows[:, 0].numpy()]
        latents[held >= 0, 0] = held[held >= 0] * 7
        return SimpleNamespace(values=torch.from_numpy(rng.random(latents.size, dtype=np.float32) + 0.1),
                               tokens=torch.arange(len(rows)).repeat_interleave(L0), latents=torch.from_numpy(latents.ravel()))

    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, time.process_time()
    found = label(Dictionary(encode, N_LATENTS), lambda at: torch.from_numpy(at)[:, None], [places], concepts)[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{n:,} places, {N_LATENTS:,} latents, {N_NAMES:,} concepts, l0 {L0}: {time.process_time() - began:.1f} s, "
          f"{peak - before:.2f} GB above {before:.2f}; {(found.score >= 0.5).mean():.0%} of the planted latents found")


if __name__ == "__main__":
    main()
