"""Language models of the Hugging Face hub, at one commit. A plan fetches config.json and tokenizer.json; a launch the weights.

Offline (HF_HUB_OFFLINE=1) all of it comes from the hub's cache on this machine, or fails at once.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from saescale.activations.folder import LMFolder

COMMIT = re.compile(r"[0-9a-f]{40}")
REGISTRY = "tools/model_registry/data"
WEIGHTS = ("*.safetensors", "*.json")


@dataclass(frozen=True)
class HubFolder(LMFolder):
    """A snapshot of the hub: known by its commit, so that nothing is hashed, and perhaps still without weights."""

    name: str = ""
    required = ("config.json", "tokenizer.json")

    @property
    def label(self) -> str:
        return self.name

    @property
    def revision(self) -> str:
        return f"{self.name}@{self.path.name}"


def official_name(name: str) -> str:
    """The hub's name of what transformer-lens calls `name` (gpt2-small -> openai-community/gpt2); others stay as they are."""
    return {alias: official for official, aliases in known_aliases().items() for alias in aliases}.get(name, name)


@cache
def known_aliases() -> Mapping[str, list[str]]:
    """The hub's names with the names transformer-lens has for them: a table of 4.x, in the source of 3.9."""
    found = registry("model_aliases.json").get("aliases")
    if found is None:
        assigned = [n for n in ast.parse(shipped("supported_models.py") or "").body if isinstance(n, ast.AnnAssign)]
        found = next((ast.literal_eval(n.value) for n in assigned if ast.unparse(n.target) == "MODEL_ALIASES" and n.value), {})
    return found


def registry(file: str) -> dict[str, Any]:
    """A table that transformer-lens ships."""
    return json.loads(shipped(f"{REGISTRY}/{file}") or "{}")


def shipped(file: str) -> str | None:
    """A file of the installed transformer-lens, read without importing it (that takes seconds)."""
    found = find_spec("transformer_lens")
    try:
        return (Path(found.submodule_search_locations[0]) / file).read_text()
    except (AttributeError, TypeError, FileNotFoundError):
        return None


def near(name: str) -> list[str]:
    """Names of models that read like `name`, of those transformer-lens knows."""
    aliases = known_aliases()
    named = {*aliases, *(a for given in aliases.values() for a in given)}
    return closest(name, named) or closest(name, {m["model_id"] for m in registry("supported_models.json").get("models", [])})


def closest(name: str, known: set[str]) -> list[str]:
    short = {k.rpartition("/")[2].lower(): k for k in sorted(known, reverse=True)}
    return [short[c] for c in difflib.get_close_matches(name.rpartition("/")[2].lower(), short, n=3, cutoff=0.7)]


def hub_folder(name: str, revision: str | None) -> HubFolder:
    """The snapshot of `name` with its config and tokenizer. Raises ValueError in one sentence when it cannot be had."""
    official = official_name(name)
    paths = [fetched(official, revision, file) for file in ("config.json", "tokenizer.json")]
    return HubFolder(paths[0].parent, official)


def fetched(name: str, revision: str | None, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except LocalEntryNotFoundError as e:
        raise explained(e, name, "model", file) from e
    except EntryNotFoundError as e:
        what = "a tokenizer.json" if file == "tokenizer.json" else file
        raise ValueError(f"the model {name} has no {what} on the hub. Load it with transformers, save model and tokenizer into a "
                         "folder with save_pretrained, and give lm=/path/to/folder.") from e
    except HFValidationError:
        raise ValueError(unknown(name)) from None
    except OSError as e:
        raise explained(e, name, "model", file) from e


def fetch_weights(name: str, commit: str) -> None:
    """All safetensors of a snapshot into the hub's cache; those that are there are not fetched again."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=list(WEIGHTS)))
    except OSError as e:
        raise explained(e, name, "model", "weights") from e
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"the model {name} has no safetensors weights at {commit[:12]}, offline or on the hub; pickled ones are "
                         "never opened. Convert it with transformers' save_pretrained and give lm=/path/to/folder.")


def commit_of(name: str, revision: str | None, kind: str) -> str:
    """The commit a revision (None: the main branch) stands for. Offline: as the cache remembers it."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import repo_folder_name

    if revision and COMMIT.fullmatch(revision):
        return revision
    if constants.HF_HUB_OFFLINE:
        ref = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind) / "refs" / (revision or "main")
        if ref.is_file():
            return ref.read_text().strip()
        raise ValueError(offline(name, kind))
    try:
        return HfApi().repo_info(name, revision=revision, repo_type=kind).sha
    except (OSError, HTTPError) as e:
        raise explained(e, name, kind) from e


def offline(name: str, kind: str) -> str:
    give = "lm=/path/to/folder" if kind == "model" else "a local folder as data.path"
    near_by = f" {did_you_mean(name)}" if kind == "model" and near(name) and name not in near(name) else ""
    return (f"the {kind} {name} is not in the hub's cache on this machine, and the hub cannot be asked (offline).{near_by} Fetch "
            f"it where there is a network (`hf download {name}`), or give {give}.")


def did_you_mean(name: str) -> str:
    close = near(name)
    return f"Did you mean {' or '.join(close)}?" if close else ""


def unknown(name: str) -> str:
    return (f"there is no model {name!r}: it is no folder here, no name transformer-lens knows, and not on the hub. "
            f"{did_you_mean(name)}").strip()


def explained(e: Exception, name: str, kind: str, what: str = "") -> ValueError:
    """What the hub's client said, as one sentence with what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    if isinstance(e, GatedRepoError):
        return ValueError(f"the {kind} {name} is gated: accept its terms on {page}, then give your token in the environment "
                          "variable HF_TOKEN (or `hf auth login`).")
    if isinstance(e, RepositoryNotFoundError):
        return ValueError(unknown(name) if kind == "model" else f"there is no dataset {name} on the hub that you may read: check "
                          f"{page}, or set HF_TOKEN where it is private.")
    if isinstance(e, RevisionNotFoundError):
        return ValueError(f"the {kind} {name} has no such revision: give a branch, a tag or a commit that {page} lists.")
    unreachable = isinstance(e, HTTPError) and not isinstance(e, HfHubHTTPError)  # the client's own: no answer came
    if unreachable or isinstance(e, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)):
        return ValueError(offline(name, kind))
    return ValueError(f"{what or 'the'} {kind} {name} cannot be fetched from the hub: {type(e).__name__}: "
                      f"{' '.join(str(e).split())[:200]}")
