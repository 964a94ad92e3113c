"""Models of the hub, from a hub on loopback and from the cache alone."""

import shutil
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from saescale.activations import hub
from saescale.activations.folder import BUNDLED
from saescale.records.store import read_json

sys.path.insert(0, str(Path(__file__).parents[1]))
import hub_server  # noqa: E402


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub that serves a copy of the bundled model; yields (the folder it serves, what it was asked)."""
    folder = tmp_path / "served"
    shutil.copytree(BUNDLED, folder)
    with hub_server.serving(folder) as (address, asked):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield folder, asked


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def cached(root):
    """The bundled model as the cache holds `lab/tiny`."""
    snapshot = root / "models--lab--tiny" / "snapshots" / hub_server.COMMIT
    shutil.copytree(BUNDLED, snapshot)
    (root / "models--lab--tiny" / "refs").mkdir()
    (root / "models--lab--tiny" / "refs" / "main").write_text(hub_server.COMMIT)
    return snapshot


def test_a_plan_fetches_config_and_tokenizer_and_a_launch_the_weights_of_the_same_commit(served):
    _, asked = served
    folder = hub.hub_folder("lab/tiny", None)
    assert folder.revision == f"lab/tiny@{hub_server.COMMIT}" and folder.d_model == 128
    assert not list(folder.path.glob("*.safetensors")) and not any("safetensors" in path for _, path in asked)
    hub.fetch_weights("lab/tiny", folder.path.name)
    assert (folder.path / "model.safetensors").read_bytes() == (BUNDLED / "model.safetensors").read_bytes()


def test_a_model_without_safetensors_is_never_unpickled(served):
    folder, _ = served
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    commit = hub.hub_folder("lab/tiny", None).path.name
    with pytest.raises(ValueError, match="lab/tiny has no safetensors weights.*pickled ones are never opened"):
        hub.fetch_weights("lab/tiny", commit)


def test_a_model_without_a_tokenizer_file_is_refused_with_the_way_around(served):
    folder, _ = served
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="lab/tiny has no a?.*tokenizer.json on the hub.*save_pretrained"):
        hub.hub_folder("lab/tiny", None)


@pytest.mark.parametrize(("name", "revision", "said"), [
    ("lab/gated", None, "lab/gated is gated: accept its terms on https://huggingface.co/lab/gated.*HF_TOKEN"),
    ("lab/none", None, "there is no model 'lab/none'"), ("lab/tiny", "v9", "lab/tiny has no such revision"),
    ("not a name//", None, "there is no model 'not a name//'"),
])
@pytest.mark.usefixtures("served")
def test_what_the_hub_refuses_is_one_sentence_with_what_to_do(name, revision, said):
    with pytest.raises(ValueError, match=said) as e:
        hub.hub_folder(name, revision)
    assert "\n" not in str(e.value)


def test_offline_a_model_that_is_not_cached_fails_at_once_with_near_names(offline):  # noqa: ARG001
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"not in the hub's cache.*offline\)\. Did you mean EleutherAI/pythia-70m-deduped"):
        hub.hub_folder("pythia-70m-dedup", None)
    assert time.monotonic() - begun < 10  # the client would try for 23 s


def test_offline_the_cache_answers_for_main_and_for_a_commit(offline):
    snapshot = cached(offline)
    assert hub.hub_folder("lab/tiny", None).path == snapshot == hub.hub_folder("lab/tiny", hub_server.COMMIT).path
    assert hub.commit_of("lab/tiny", None, "model") == hub_server.COMMIT
    with pytest.raises(ValueError, match="the dataset lab/texts is not in the hub's cache.*local folder as data.path"):
        hub.commit_of("lab/texts", None, "dataset")


def test_names_of_transformer_lens_are_names_of_the_hub():
    assert hub.official_name("gpt2-small") == "gpt2"
    assert hub.official_name("pythia-70m-deduped") == "EleutherAI/pythia-70m-deduped"
    assert hub.official_name("lab/tiny") == "lab/tiny"
    assert hub.near("pythia-160m-dedupd")[0] == "EleutherAI/pythia-160m-deduped"


def test_transformer_lens_3_9_has_these_names_in_its_source(monkeypatch):
    source = 'NAMES = ["a"]\nMODEL_ALIASES: dict[str, list[str]] = {\n    "lab/tiny": ["tiny", "small"],  # of the lab\n}\n'
    monkeypatch.setattr(hub, "shipped", {"supported_models.py": source}.get)
    assert hub.known_aliases.__wrapped__() == {"lab/tiny": ["tiny", "small"]}


def test_a_sweep_reads_a_model_of_the_hub_under_its_commit(project, saescale, offline):
    cached(offline)
    code, _, err = saescale("harvest", "tiny", "lm=lab/tiny", "seed=0", "budget.flops=4e8", "data.max_train_tokens=60_000")
    assert code == 0, err
    spec, = ((project.store / "activations").glob("*/spec.json"))
    assert read_json(spec)["lm"]["revision"] == f"lab/tiny@{hub_server.COMMIT}" and list(spec.parent.glob("train-*.bin"))


def test_two_models_at_once_are_refused(project, saescale):  # noqa: ARG001
    code, _, err = saescale("plan", "tiny", "lm=lab/tiny", "lm.path=/elsewhere")
    assert code == 2 and "two language models given: lm.name=lab/tiny and lm.path=/elsewhere" in err
