"""The kinds of SAE, one small file each: `contract.py` says what a kind is, docs/new_kind.md shows how to add one."""

from saescale.sae.kinds.batchtopk import BatchTopK
from saescale.sae.kinds.contract import Kind
from saescale.sae.kinds.gated import Gated
from saescale.sae.kinds.jumprelu import JumpReLU
from saescale.sae.kinds.jumprelu_tanh import JumpReLUTanh
from saescale.sae.kinds.matryoshka import Matryoshka
from saescale.sae.kinds.relu_l1 import ReluL1
from saescale.sae.kinds.topk import TopK

KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (TopK, BatchTopK, Matryoshka, ReluL1, JumpReLU, JumpReLUTanh, Gated)
}
