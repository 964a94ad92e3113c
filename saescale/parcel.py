"""Finished runs made ready for the Hugging Face hub, in SAELens' layout: a folder per SAE, one model card for all.

    <run_id>/cfg.json  <run_id>/sae_weights.safetensors  <run_id>/result.json  README.md

One list of files serves --dry-run, --to and the upload, so that each shows what the others do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import saescale
from saescale.campaign import recorded
from saescale.campaign.plan import PlannedRun
from saescale.campaign.status import state
from saescale.records import record
from saescale.records.store import Damaged, Store, read_json, trouble_of_weights
from saescale.sources import is_synthetic

CFG_FILE, WEIGHTS_FILE, CARD = "cfg.json", "sae_weights.safetensors", "README.md"
COLUMNS = ("kind", "n_latents", "k", "sparsity_coeff", "n_tokens", "l0", "fvu", "ce_recovered", "objective")


@dataclass(frozen=True)
class Parcel:
    """What would be uploaded to `repo`: path there -> the file here, or its bytes."""

    repo: str
    files: Mapping[str, Path | bytes]
    runs: tuple[str, ...]
    unfinished: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(f) if isinstance(f, bytes) else f.stat().st_size for name, f in self.files.items()}


def pack(store: Store, name: str, repo: str) -> Parcel:
    """The finished runs of a sweep, or the one run whose id begins or ends with `name`, with their card.

    Errors: `ValueError` for a name that is no repository's, an unknown run, or nothing that is finished.
    """
    check_repo(repo)
    plan = read_json(store.sweep_dir(name) / "plan.json") if name else None
    if plan is None:
        chosen, question = [recorded.find(store, name)], None
    else:
        known = store.known_runs()
        chosen, question = [recorded.read(store, r["run_id"]) for r in plan["runs"] if r["run_id"] in known], plan["question"]
    finished = [r for r in chosen if state(r, store).state == "done"]
    if not finished:
        raise ValueError(f"{name} has no finished run to push: `saescale launch` trains what is missing.")
    files: dict[str, Path | bytes] = {}
    for run in finished:
        folder = store.run_dir(run.run_id)
        require_whole(folder)
        files |= {f"{run.run_id}/{file}": folder / file for file in (CFG_FILE, WEIGHTS_FILE, record.RESULT)}
    files[CARD] = card(repo, finished, store, question).encode()
    return Parcel(repo, files, tuple(r.run_id for r in finished), (len(plan["runs"]) if plan else 1) - len(finished))


def require_whole(folder: Path) -> None:
    """Raises Damaged for the folder of a finished run whose SAE is missing or cut off: nobody could load it from the hub."""
    trouble = trouble_of_weights(folder / WEIGHTS_FILE)
    if trouble is None and read_json(folder / CFG_FILE) is not None:
        return
    name = WEIGHTS_FILE if trouble else CFG_FILE
    raise Damaged(f"{folder / name} is damaged: {trouble or 'it is missing'}. Restore it, or move that folder away and launch "
                  "again. Nothing was pushed.")


def check_repo(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = ""
    if repo.count("/") != 1:
        raise ValueError("--repo takes OWNER/NAME, both of letters, digits and - _ . (such as my-lab/my-saes).")


def write(parcel: Parcel, folder: Path) -> None:
    """What would be uploaded, into a new or empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder: give --to a new one. Nothing was written.")
    for name, file in parcel.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file) if isinstance(file, bytes) else shutil.copyfile(file, target)


def push(parcel: Parcel, private: bool) -> str:
    """Upload in one commit, making the repository where there is none; gives its address.

    The token is the client's business (HF_TOKEN, or `hf auth login`): it is neither read nor kept here. Errors: `ValueError` in
    one sentence, offline before anything is sent.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.errors import HTTPError

    other = "--to FOLDER writes what would be uploaded"
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"the hub cannot be asked (HF_HUB_OFFLINE is set): push from where there is a network; {other}.")
    if get_token() is None:
        raise ValueError("the hub takes uploads with a token only: give one that may write in the environment variable HF_TOKEN "
                         f"(or `hf auth login`); {other}.")
    wanted = [CommitOperationAdd(name, file) for name, file in parcel.files.items()]
    said = f"{len(parcel.runs)} SAEs by saescale {saescale.__version__}"
    try:
        api = HfApi()
        address = api.create_repo(parcel.repo, private=private or None, exist_ok=True)
        api.create_commit(parcel.repo, wanted, commit_message=said)
    except (OSError, HTTPError) as e:
        raise ValueError(f"{parcel.repo} was not pushed: {_one_line(e)}; {other}.") from None
    return str(address)


def _one_line(e: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    status = e.response.status_code if isinstance(e, HfHubHTTPError) and e.response is not None else None
    if isinstance(e, RepositoryNotFoundError) or status in (401, 403):
        return f"the hub refuses this token ({status}): it must be allowed to write to this owner's repositories"
    return f"the hub answers {status}" if status else f"the hub cannot be reached ({type(e).__name__})"


def card(repo: str, runs: Sequence[PlannedRun], store: Store, question: str | None) -> str:
    """The model card: what the SAEs read, a row of numbers for each, and how to load one."""
    results = {r.run_id: read_json(store.run_dir(r.run_id) / record.RESULT) for r in runs}
    bases = sorted({hub["name"] for r in runs if (hub := r.execution.get("lm_hub"))})
    base = [f"base_model: {json.dumps(bases[0] if len(bases) == 1 else bases)}"] if bases else []
    example = runs[0].run_id
    return "\n".join([
        "---", "library_name: saelens", *base, "tags:", "- sparse-autoencoder", "- saescale", "---", "",
        f"# {repo.rpartition('/')[2]}", "",
        f"{len(runs)} sparse autoencoder{'s' * (len(runs) > 1)} trained with saescale {saescale.__version__}"
        + (f" to ask: {question}" if question else "."), "",
        *(f"- {line}" for line in sorted({reads(r) for r in runs})), "",
        "```python", "from sae_lens import SAE", "", f'sae = SAE.from_pretrained("{repo}", "{example}")', "```", "",
        "They take raw activations of their hook. `saescale.load_sae(FOLDER)` opens a downloaded folder too; `result.json` holds "
        "the whole recipe, every metric and the versions.", "",
        *numbers(runs, results), "",
        "Measured on held-out documents. `fvu`: share of the variance left unexplained. `ce_recovered`: 1 with the language "
        "model's own loss, 0 with that of zero ablation. `objective`: the held-out training loss over the variance.", ""])


def reads(run: PlannedRun) -> str:
    """What a run's activations are, in words."""
    lm, data = run.science["lm"], run.science["data"]
    if is_synthetic(run.science):
        return f"synthetic activations of width {lm['d_in']}"
    hub = run.execution.get("lm_hub")
    name = f"{hub['name']} at {hub['commit']}" if hub else f"the model whose files hash to {lm['revision'][:12]}"
    return (f"`{lm['hook_name']}` (width {lm['d_in']}) of {name}, over {data['corpus']} in sequences of {data['n_ctx']} tokens "
            f"(corpus {data['corpus_sha256'][:12]})")


def numbers(runs: Sequence[PlannedRun], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table with a row for each run; columns that are missing everywhere are left out."""
    rows = {r.run_id: {**r.science["sae"], **results[r.run_id]["metrics"], "n_tokens": r.science["train"]["n_tokens"]}
            for r in runs}
    columns = [c for c in COLUMNS if any(row.get(c) is not None for row in rows.values())]
    return ["| SAE | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|",
            *(f"| `{name}` | " + " | ".join(shown(row.get(c)) for c in columns) + " |" for name, row in rows.items())]


def shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
