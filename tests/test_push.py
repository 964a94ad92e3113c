"""Runs for the hub: what would be uploaded, and the real client's upload to a hub on loopback."""

import base64
import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from saescale.records.store import read_json

sys.path.insert(0, str(Path(__file__).parent))
import hub_server  # noqa: E402

TOKEN = "hf_SecretOfATest"
SWEEP = """\
question: May others have it?
base: [activations=synthetic, sae=topk, train=small, cluster=inprocess]
set: {activations.d_in: 16, activations.n_features: 32, activations.n_tokens: 16_384, sae.k: 2, train.lr_warmup_tokens: 512,
      eval.n_tokens: 2048, budget.min_steps: 10, train.n_tokens: 4096}
grids:
  grid: {sae.n_latents: [16, 32]}
"""


@pytest.fixture
def trained(project, saescale):
    """Two finished runs of sweep `given`, smallest first."""
    project.sweep("given", SWEEP)
    code, _, err = saescale("launch", "given")
    assert code == 0, err
    return sorted((project.store / "by-id").iterdir(), key=lambda f: read_json(f / "cfg.json")["d_sae"])


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub that takes uploads, with a token in the environment; yields what it was asked."""
    with hub_server.serving(tmp_path) as (address, asked):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield asked


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def received(asked):
    """path -> bytes of the one commit that was taken; files that went by LFS from what was put under their hash."""
    put = {path.removeprefix("lfs/"): body for command, path, _, body in asked if command == "PUT"}
    commit, = (body for command, path, _, body in asked if "/commit/" in path)
    found = {}
    for line in map(json.loads, commit.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            found[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            found[value["path"]] = put[value["oid"]]
    return found


def test_the_upload_is_what_to_writes_and_dry_run_lists_and_the_token_stays_where_it_was(trained, project, served, saescale):
    code, out, err = saescale("push", "given", "--repo", "lab/tiny", "--to", "parcel")
    assert code == 0 and "2 SAEs" in out, err
    written = contents(project.root / "parcel")
    assert set(written) == {"README.md", *(f"{r.name}/{f}" for r in trained
                                           for f in ("cfg.json", "sae_weights.safetensors", "result.json"))}
    listed = json.loads(saescale("push", "given", "--repo", "lab/tiny", "--dry-run", "--json")[1])
    assert listed["files"] == {name: len(data) for name, data in written.items()} and listed["address"] is None
    assert not served
    code, out, err = saescale("push", "given", "--repo", "lab/tiny")
    assert code == 0 and "at http" in out, err
    assert received(served) == written
    assert {bearer for _, path, bearer, _ in served if not path.startswith("lfs")} == {f"Bearer {TOKEN}"}
    assert TOKEN not in out + err
    assert not any(TOKEN.encode() in p.read_bytes() for p in project.root.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "cfg.json"])
def test_an_sae_that_is_cut_off_or_missing_is_not_pushed(trained, project, saescale, name):
    file = trained[1] / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    code, _, err = saescale("push", "given", "--repo", "lab/tiny", "--to", "parcel")
    assert code == 2 and str(file) in err and "is damaged" in err and err.count("\n") == 1
    file.unlink()
    code, _, err = saescale("push", "given", "--repo", "lab/tiny", "--to", "parcel")
    assert code == 2 and str(file) in err and "it is missing" in err and not (project.root / "parcel").exists()
    file.write_bytes(whole)
    assert saescale("push", "given", "--repo", "lab/tiny", "--to", "parcel")[0] == 0


def test_the_card_has_a_row_of_each_runs_own_numbers_and_the_line_that_loads_one(trained, project, saescale):
    saescale("push", "given", "--repo", "lab/tiny", "--to", "parcel")
    card = (project.root / "parcel" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: saelens\n") and "May others have it?" in card
    assert f'SAE.from_pretrained("lab/tiny", "{trained[0].name}")' in card
    header = next(line for line in card.splitlines() if line.startswith("| SAE")).strip("| ").split(" | ")
    for run in trained:
        row = next(line for line in card.splitlines() if line.startswith(f"| `{run.name}`")).strip("| ").split(" | ")
        own = read_json(run / "result.json")["metrics"]
        assert float(row[header.index("fvu")]) == pytest.approx(own["fvu"], rel=1e-3)
        assert row[header.index("n_latents")] == str(read_json(run / "cfg.json")["d_sae"])
    assert "sparsity_coeff" not in header and str(project.root) not in card


def test_one_run_is_pushed_by_a_part_of_its_id_and_unfinished_ones_are_left_out(trained, saescale):
    (trained[1] / "result.json").unlink()
    said = json.loads(saescale("push", trained[0].name[-8:], "--repo", "lab/tiny", "--dry-run", "--json")[1])
    assert said["runs"] == [trained[0].name] and said["unfinished"] == 0
    code, out, _ = saescale("push", "given", "--repo", "lab/tiny", "--dry-run")
    assert code == 0 and "1 runs are not finished" in out and trained[1].name not in out
    code, _, err = saescale("push", trained[1].name, "--repo", "lab/tiny", "--dry-run")
    assert code == 2 and "no finished run to push" in err


@pytest.mark.usefixtures("trained")
def test_what_cannot_be_pushed_is_refused_in_one_sentence(project, served, saescale, monkeypatch):
    for arguments, what in ((("given", "--repo", "tiny"), "OWNER/NAME"), (("given", "--repo", "a b/c"), "OWNER/NAME"),
                            (("nothing", "--repo", "lab/tiny"), "no run"),
                            (("given", "--repo", "locked/tiny"), "the hub refuses this token (403)"),
                            (("given", "--repo", "lab/tiny", "--to", str(project.root)), "not an empty folder")):
        code, _, err = saescale("push", *arguments)
        assert code == 2 and what in err and err.count("\n") == 1 and TOKEN not in err, err
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = saescale("push", "given", "--repo", "lab/tiny")
    assert code == 2 and "cannot be reached" in err and err.count("\n") == 1
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(project.root / "none"))
    assert "with a token only" in saescale("push", "given", "--repo", "lab/tiny")[2]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    n_asked = len(served)
    code, _, err = saescale("push", "given", "--repo", "lab/tiny")
    assert code == 2 and "HF_HUB_OFFLINE is set" in err and "--to FOLDER" in err and len(served) == n_asked
