"""The exported SAE: SAELens' directory format (6.x), for raw activations, written with json and safetensors alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from saescale.sae.kinds import KINDS
from saescale.sae.model import SAE

CFG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
SAELENS_FORMAT = "6.54.12"  # the version whose format this is; SAELens rewrites configs without one of at least 6.0.0


def unscaled(sae: SAE, scale: float) -> SAE:
    """The SAE of raw activations x_raw = x / scale that equals `sae` of x: x_hat_raw(x_raw) = x_hat(x) / scale.

    ReLU, top-k and a step at a threshold are positively homogeneous, so the weights stay and biases and thresholds are divided by
    scale. Latent activations come out divided by scale too.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(
            f"scale={scale} cannot be folded into an SAE: it multiplies raw activations and must be finite and above 0."
        )
    raw = sae.clone()
    raw.b_enc.div_(scale)
    raw.b_dec.div_(scale)
    raw.kind.unscale_(raw.own, scale)
    return raw


def save(sae: SAE, scale: float, folder: str | Path, metadata: Mapping[str, Any]) -> None:
    """Writes cfg.json and sae_weights.safetensors of `sae`, trained on x = scale * x_raw, into an existing folder.

    metadata goes into cfg.json beside what load needs; its keys that SAELens knows: model_name, hook_name, context_size,
    dataset_path, prepend_bos. It must be plain JSON values.
    """
    raw, folder = unscaled(sae, scale), Path(folder)
    kind = raw.kind
    cfg = {
        "architecture": kind.architecture,
        "d_in": raw.d_in,
        "d_sae": raw.n_latents,
        "dtype": str(raw.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": kind.subtracts_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **kind.export_settings(),
        "metadata": {
            "sae_lens_version": SAELENS_FORMAT,
            "sae_lens_training_version": None,
            "training_architecture": kind.training_architecture or kind.architecture,
            **metadata,
            "saescale": {"kind": kind.name, "settings": kind.inference_settings(), "scale": scale},
        },
    }
    text = json.dumps(cfg, indent=2, allow_nan=False)  # before anything is written
    tensors = {"W_enc": raw.W_enc, "W_dec": raw.W_dec, "b_dec": raw.b_dec} | kind.exported(raw)
    weights = serialise({name: tensor.contiguous() for name, tensor in tensors.items()})
    (folder / WEIGHTS_FILE).write_bytes(weights)  # not save_file: a full disk must be an OSError
    (folder / CFG_FILE).write_text(text + "\n")


def load(folder: str | Path) -> SAE:
    """The SAE saved in a folder; it takes raw activations. Errors: `ValueError` for a folder of none, or a damaged one."""
    folder = Path(folder)
    for name in (CFG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no exported SAE: {name} is missing.")
    try:
        own = json.loads((folder / CFG_FILE).read_text()).get("metadata", {}).get("saescale")
    except (ValueError, AttributeError) as e:
        raise ValueError(f"{folder / CFG_FILE} is damaged: {e}. Restore it, or train that run again.") from e
    if not own or own["kind"] not in KINDS:
        raise ValueError(
            f"{folder / CFG_FILE} was not written by saescale, or by one that knows more kinds than {', '.join(KINDS)}."
        )
    try:
        tensors, kind = load_file(folder / WEIGHTS_FILE), KINDS[own["kind"]](**own["settings"])
    except SafetensorError as e:
        raise ValueError(f"{folder / WEIGHTS_FILE} is damaged: {e}. Restore it, or train that run again.") from e
    b_enc, kept = kind.imported(tensors)
    encoder_rows = tensors["W_enc"].T.contiguous()
    return SAE(kind, encoder_rows.T, b_enc, tensors["W_dec"], tensors["b_dec"], kept)
