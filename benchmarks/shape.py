"""What is timed: one training step of one SAE."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    kind: str = "topk"
    d_in: int = 512
    n_latents: int = 8192
    k: int = 32
    batch: int = 2048
    lr: float = 1e-9  # no time depends on it, and a code that begins sparse stays so
    sparsity_coeff: float = 1.0
    l0: int = 90  # relu_l1: where our encoder biases are put at the start; the time of the dense peers does not depend on it
    threads: int = 2
    dead_after_tokens: int = 10_000_000  # as the peers: nobody's auxiliary loss has anything to do
    device: str = "cpu"
