"""Compiles every Triton kernel as a step launches it, for a GPU that need not be there: run as a script by test_triton.py."""

import os

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from saescale.sae.kernels import AdamRule, triton_device

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64", torch.uint8: "*u8"}
TARGET = GPUTarget("cuda", 90, 32)
done = {}


def written(value):
    if isinstance(value, torch.Tensor):
        return TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if abs(value) < 2**31 else "i64"


def compiled(kernel, _grid, _like, *arguments, num_warps=4, **sizes):
    names = [p.name for p in kernel.params]
    signature = dict(zip(names, map(written, arguments), strict=False))
    assert [*signature, *sizes] == names, (names, signature, sizes)
    key = (kernel.__name__, tuple(signature.values()), tuple(sizes.items()))
    if key not in done:
        source = ASTSource(fn=kernel, signature=signature | dict.fromkeys(sizes, "constexpr"), constexprs=sizes)
        done[key] = triton.compile(source, target=TARGET, options={"num_warps": num_warps})


def main():
    triton_device._launch = compiled
    for n_tokens, d_in, n_latents, k in ((3, 768, 32_768, 32), (3, 2304, 20_011, 128), (3, 513, 10_007, 5)):
        x, W_dec = torch.zeros(n_tokens, d_in), torch.zeros(n_latents, d_in)
        for z in (torch.zeros(n_tokens, n_latents),
                  triton_device.Products(torch.zeros(n_tokens, n_latents, dtype=torch.bfloat16), torch.zeros(n_latents))):
            pairs = triton_device.top_k(z, k)
            triton_device.top_k(z, 512, torch.zeros(n_latents, dtype=torch.bool))
            triton_device.batch_top_k(z, n_tokens * k)
        triton_device.decode(pairs, W_dec)
        triton_device.errors(pairs, W_dec, x)
        triton_device.dots(pairs, W_dec, x)
        groups = triton_device.group_by_latent(pairs, n_latents)
        triton_device.sum_group(groups, pairs.values)
        triton_device.sum_rows(groups, pairs.values, x, W_dec)
        triton_device.sum_rows(groups, pairs.values, x, W_dec, torch.zeros(n_latents, dtype=torch.bool))
        params = torch.zeros(4, d_in * 40)
        rule = AdamRule(1e-3, 0.9, 0.999, 1e-8, 1.0, 3)
        triton_device.adam(params[0], params[1], (params[2], params[3]), rule, params[0, d_in : 9 * d_in].view(8, d_in))
    for (name, *_), kernel in done.items():
        print(name, kernel.metadata.shared, "bytes of shared memory,", len(kernel.asm["cubin"]), "of code")


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET") != "1"
    main()
