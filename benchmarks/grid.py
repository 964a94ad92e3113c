"""The runs of benchmarks.sweep, in a file of its own: SAELens' environment reads it too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """topk SAEs on the bundled language model: every size at every horizon and learning rate."""

    sizes: tuple[int, ...]
    tokens: tuple[int, ...]
    lrs: tuple[float, ...] = (2e-3, 5e-3)
    k: int = 16
    batch: int = 1024
    n_ctx: int = 128
    batch_sequences: int = 32
    layer: int = 2
    d_in: int = 128

    @property
    def n_runs(self) -> int:
        return len(self.sizes) * len(self.tokens) * len(self.lrs)
