"""SAEs that others trained, read from disk: SAELens' directories (6.x) and sparsify's (1.x). They take raw activations.

Only what one of our kinds computes exactly is read; everything else is refused with what stands in the way. Their training
objective is not known, so their penalty is 0: of their metrics only those count that need none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saescale.sae import export
from saescale.sae.kinds import Gated, JumpReLU, Kind, ReluL1, TopK
from saescale.sae.model import SAE

SPARSIFY_WEIGHTS = "sae.safetensors"
NO_PENALTY = 0.0
SAELENS_KINDS = {"standard": "relu_l1", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}


def load(folder: str | Path) -> SAE:
    """The SAE in a folder of SAELens, sparsify or saescale.

    Errors: `ValueError` naming what is missing, or the setting that no kind here computes.
    """
    folder = Path(folder)
    cfg = _cfg(folder)
    if _is_ours(cfg):
        return export.load(folder)
    if (folder / SPARSIFY_WEIGHTS).is_file():
        return _of_sparsify(folder, cfg)
    return _of_saelens(folder, cfg)


def origin(folder: str | Path) -> str:
    """Whose format the folder is in: saescale, saelens or sparsify."""
    folder = Path(folder)
    if _is_ours(_cfg(folder)):
        return "saescale"
    return "sparsify" if (folder / SPARSIFY_WEIGHTS).is_file() else "saelens"


def _is_ours(cfg: Mapping[str, Any]) -> bool:
    return bool((cfg.get("metadata") or {}).get("saescale"))


def _cfg(folder: Path) -> dict[str, Any]:
    path = folder / export.CFG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no SAE: {export.CFG_FILE} is missing. Give a folder with {export.CFG_FILE} and "
                         f"{export.WEIGHTS_FILE} (SAELens) or {SPARSIFY_WEIGHTS} (sparsify).")
    try:
        found = json.loads(path.read_text())
    except ValueError as e:
        raise ValueError(f"{path} is not valid JSON: {e}.") from e
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object: it is no SAE's configuration.")
    return found


def _of_saelens(folder: Path, cfg: Mapping[str, Any]) -> SAE:
    architecture = cfg.get("architecture")
    if architecture not in SAELENS_KINDS:
        raise ValueError(f"{folder}: architecture={architecture!r} is not read. Those that are: {', '.join(SAELENS_KINDS)}.")
    for key, allowed in (("normalize_activations", "none"), ("reshape_activations", "none")):
        if cfg.get(key, allowed) != allowed:
            raise ValueError(f"{folder}: {key}={cfg[key]!r} is not read: saescale gives an SAE the activations as they are. Fold "
                             f"it into the weights first, so that {key} is {allowed!r}.")
    tensors = _tensors(folder / export.WEIGHTS_FILE)
    if architecture == "topk" and cfg.get("rescale_acts_by_decoder_norm"):
        tensors = _rows_at_norm_1(tensors)
    if architecture == "jumprelu" and "log_threshold" in tensors:
        tensors.setdefault("threshold", tensors.pop("log_threshold").exp())
    if architecture == "jumprelu" and "threshold" in tensors:
        tensors["threshold"].clamp_min_(0)  # theirs is ReLU(z) 1[z > threshold]: below 0 nothing is active
    subtracts_b_dec = bool(cfg.get("apply_b_dec_to_input", True))  # SAELens' own default
    return _sae(folder, _kind(folder, architecture, cfg), tensors, subtracts_b_dec)


def _kind(folder: Path, architecture: str, cfg: Mapping[str, Any]) -> Kind:
    if architecture == "topk":
        return _topk(folder, cfg)
    if architecture == "jumprelu":
        return JumpReLU(sparsity_coeff=NO_PENALTY, bandwidth=1e-3)
    return (Gated if architecture == "gated" else ReluL1)(sparsity_coeff=NO_PENALTY)


def _topk(folder: Path, cfg: Mapping[str, Any]) -> TopK:
    k = cfg.get("k")
    if type(k) is not int or k < 1:
        raise ValueError(f"{folder / export.CFG_FILE}: k={k!r} is no number of latents per token. Set k there to the whole "
                         "number this SAE keeps.")
    return TopK(k=k)


def _of_sparsify(folder: Path, cfg: Mapping[str, Any]) -> SAE:
    """sparsify's encoder is a torch Linear of x - b_dec; k of its ReLUs are kept."""
    for key, allowed in (("activation", "topk"), ("transcode", False), ("skip_connection", False)):
        if cfg.get(key, allowed) != allowed:
            raise ValueError(f"{folder}: {key}={cfg[key]!r} is not read: it is no autoencoder that keeps the k largest latents.")
    given = _tensors(folder / SPARSIFY_WEIGHTS)
    names = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}
    if lacking := sorted(names - set(given)):
        raise ValueError(f"{folder / SPARSIFY_WEIGHTS} lacks {', '.join(lacking)}: it was not written by sparsify 1.x.")
    renamed = {"W_enc": given["encoder.weight"].T, "b_enc": given["encoder.bias"]}
    return _sae(folder, _topk(folder, cfg), given | renamed, subtracts_b_dec=True)


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no SAE: {path.name} is missing.")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as e:
        raise ValueError(f"{path} is damaged: {e}.") from e


def _rows_at_norm_1(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function with unit decoder rows: latents are chosen by activation times row norm, which the encoder takes over."""
    norms = tensors["W_dec"].norm(dim=1)
    return tensors | {"W_enc": tensors["W_enc"] * norms, "b_enc": tensors["b_enc"] * norms,
                      "W_dec": tensors["W_dec"] / norms[:, None]}


def _sae(folder: Path, kind: Kind, tensors: dict[str, Tensor], subtracts_b_dec: bool) -> SAE:
    """Whether the encoder reads x or x - b_dec goes into its biases, as the kind has it."""
    biases = ("b_gate", "b_mag") if kind.name == "gated" else ("b_enc",)
    _check_shapes(folder, kind, tensors, biases)
    if kind.subtracts_b_dec != subtracts_b_dec:
        shift = tensors["b_dec"] @ tensors["W_enc"] * (1.0 if kind.subtracts_b_dec else -1.0)
        tensors |= {name: tensors[name] + shift * (tensors["r_mag"].exp() if name == "b_mag" else 1.0) for name in biases}
    b_enc, own = kind.imported(tensors)
    W_enc = tensors["W_enc"].T.contiguous().T
    return SAE(kind, W_enc, b_enc.contiguous(), tensors["W_dec"].contiguous(), tensors["b_dec"].contiguous(), own)


def _check_shapes(folder: Path, kind: Kind, tensors: Mapping[str, Tensor], biases: tuple[str, ...]) -> None:
    vectors = (*biases, *{"gated": ("r_mag",), "jumprelu": ("threshold",)}.get(kind.name, ()))
    needed = ("W_enc", "W_dec", "b_dec", *vectors)
    if lacking := [name for name in needed if name not in tensors]:
        raise ValueError(f"{folder} lacks the tensors {', '.join(lacking)} of a {kind.name} SAE.")
    if tensors["W_enc"].ndim != 2:
        raise ValueError(f"{folder}: W_enc has shape {tuple(tensors['W_enc'].shape)}: it must be [d_in, n_latents].")
    d_in, n_latents = tensors["W_enc"].shape
    if kind.name == "topk" and kind.k > n_latents:
        raise ValueError(f"{folder}: k={kind.k} exceeds the {n_latents} latents of W_enc. Set k in {export.CFG_FILE} to what "
                         "this SAE keeps.")
    for name, shape in {"W_dec": (n_latents, d_in), "b_dec": (d_in,), **dict.fromkeys(vectors, (n_latents,))}.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{folder}: {name} has shape {tuple(tensors[name].shape)}, but W_enc [{d_in}, {n_latents}] needs "
                             f"{shape}.")
