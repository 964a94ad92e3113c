"""What trains on a bare GPU machine: torch, triton, numpy and safetensors are all there is."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OTHERS = {"scipy", "pandas", "pyarrow", "matplotlib", "hydra", "omegaconf", "submitit", "typer", "rich", "numba", "transformers",
          "tokenizers", "transformer_lens", "huggingface_hub", "wandb", "datasets"}
STEPS = """
import sys
import benchmarks.gpu, saescale.sae.export
from benchmarks import gpu_contestants as who
from benchmarks.shape import Shape

for kind in benchmarks.gpu.KINDS:
    s = Shape(kind, 9, 31, 3, 5, l0=5)
    x = who.inputs(s.batch, s.d_in, 1, "cpu")[0]
    for name in ("saescale, plain torch kernels", "dense PyTorch"):
        who.contestants(s, full=True)[name]()(x)
print("imported", *{name.split(".")[0] for name in sys.modules})
"""


def test_the_mathematics_and_the_gpu_benchmark_need_no_other_library(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout.startswith("imported "), done.stderr
    assert not OTHERS & set(done.stdout.split())
