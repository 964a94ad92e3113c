"""The peers' training steps, each as its own trainer takes it. Imported only in their environment (setup_peers.sh).

A maker takes Shape and returns step(x), or None where the peer lacks the kind. Their relu_l1 is dense, so
its time does not depend on l0.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.shape import Shape

warnings.filterwarnings("ignore")
Step = Callable[[Tensor], object]


def saelens(s: Shape) -> Step:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sizes = {"d_in": s.d_in, "d_sae": s.n_latents, "device": s.device}
    if s.kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(k=s.k, **sizes))
    else:
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(l1_coefficient=s.sparsity_coeff, **sizes))
    config = SAETrainerConfig(total_training_samples=10**9, train_batch_size_samples=s.batch, device=s.device, autocast=False,
                              lr=s.lr, lr_end=s.lr / 10)
    trainer = SAETrainer(config, sae, data_provider=iter(()))

    def step(x: Tensor) -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(x)
        trainer.n_training_steps += 1

    return step


def dictionary_learning(s: Shape) -> Step:
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    common = {"steps": 10**6, "activation_dim": s.d_in, "dict_size": s.n_latents, "layer": 0, "lm_name": "none",
              "device": s.device, "lr": s.lr, "warmup_steps": 1000}
    if s.kind == "topk":
        trainer = TopKTrainer(k=s.k, **common)
    else:
        trainer = StandardTrainer(l1_penalty=s.sparsity_coeff, sparsity_warmup_steps=None, resample_steps=None, **common)
    steps = iter(range(1, 10**6))
    return lambda x: trainer.update(next(steps), x)


def sparsify(s: Shape) -> Step | None:
    """Its trainer's inner step for one SAE; it has no relu_l1."""
    if s.kind != "topk":
        return None
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(s.d_in, SparseCoderConfig(num_latents=s.n_latents, k=s.k), device=s.device, dtype=torch.float32)
    adam = torch.optim.Adam(coder.parameters(), lr=s.lr, fused=True)
    since = torch.zeros(s.n_latents, dtype=torch.long, device=s.device)

    def step(x: Tensor) -> None:
        out = coder(x, dead_mask=since > s.dead_after_tokens)
        out.fvu.backward()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        coder.set_decoder_norm_to_unit_norm()
        since.add_(len(x))
        since[out.latent_indices.flatten()] = 0

    return step


PEERS = {"SAELens 6.54": saelens, "eai-sparsify 1.3": sparsify, "dictionary-learning 0.1": dictionary_learning}
