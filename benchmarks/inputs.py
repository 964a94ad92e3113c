"""The activations all contestants train on: sparse features in superposition, a function of the seed alone."""

import torch
from torch import Tensor


def activations(n_tokens: int, d_in: int, n_features: int = 4096, n_active: int = 24, seed: int = 0) -> Tensor:
    """[token, d_in] fp32 at mean square norm d_in: Zipf-distributed directions (power 1.1) and 1 % of noise."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
    frequency = torch.arange(1, n_features + 1).float() ** -1.1
    features = torch.multinomial(frequency, n_tokens * n_active, replacement=True, generator=generator).view(n_tokens, n_active)
    sizes = torch.rand(n_tokens, n_active, generator=generator) + 0.5
    x = torch.nn.functional.embedding_bag(features, directions, per_sample_weights=sizes, mode="sum")
    x += 0.01 * torch.randn(n_tokens, d_in, generator=generator)
    return x * (d_in / x.square().sum(1).mean()).sqrt()
