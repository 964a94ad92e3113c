"""HOUSE.md's floors, read from the imports of every file: they point down, and each outside library has its one room."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Wing -> floor; a wing imports its own floor's own wing and anything lower.
DOOR = {p.stem for pattern in ("cli*.py", "screen*.py") for p in (ROOT / "saescale").glob(pattern)}
FLOORS = {**dict.fromkeys(DOOR, 5), "door": 5, "looking": 5, "across": 5, "exchange": 5, "parcel": 5,
          "notebook": 5, "study": 5, "published": 5, "campaign": 4, "training": 4, "measure": 3, "activations": 2, "track": 2,
          "analysis": 2, "records": 1, "sae": 1, "config": 0, "identity": 0, "science": 0, "sources": 0, "conditions": 0,
          "slurm_site": 0, "tracking": 0, "reading": 0, "kinds": 0, "flops": 0, "__init__": 0, "bundled_lm": 0}
SCRIPTS = {"saescale/bundled_lm/make.py"}  # made the bundled model; nothing imports it
ROOMS = {"hydra": {"saescale/campaign/sweep.py", "saescale/campaign/compose.py"},
         "omegaconf": {"saescale/campaign/sweep.py", "saescale/campaign/compose.py"},
         "transformer_lens": {"saescale/activations/lm.py"}, "submitit": {"saescale/campaign/slurm.py"},
         "typer": {"saescale/door.py", *(f"saescale/{name}.py" for name in DOOR if name.startswith("cli"))},
         "rich": {f"saescale/{name}.py" for name in DOOR if name.startswith("screen")},
         "sklearn": {"saescale/measure/probing.py"}, "wandb": {"saescale/track/client.py"},
          "wandb_workspaces": {"saescale/track/workspace.py"}}


def files():
    return sorted(p for wing in ("saescale", "analysis") for p in (ROOT / wing).rglob("*.py"))


@cache
def imports(path):
    """Dotted names a file imports, wherever in the file; `from a import b` gives a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def wing(dotted):
    parts = dotted.split(".")
    if parts[0] == "analysis":
        return "analysis"
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"


def wing_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "analysis" if parts[0] == "analysis" else parts[1]


def typing_only(path):
    """Names imported under `if TYPE_CHECKING:`; they are no imports at run time."""
    blocks = [n.body for n in ast.walk(ast.parse(path.read_text()))
              if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    return {f"{n.module}.{a.name}" for body in blocks for n in body if isinstance(n, ast.ImportFrom) for a in n.names}


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if str(path.relative_to(ROOT)) in SCRIPTS:
        return
    own = wing_of(path)
    for name in sorted(imports(path) - typing_only(path)):
        if name.split(".")[0] in ("saescale", "analysis"):
            other = wing(name)
            allowed = other == own or FLOORS[other] < FLOORS[own] or FLOORS[own] == FLOORS[other] in (0, 5)
            assert allowed, f"{path.relative_to(ROOT)} ({own}, floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})"


def test_every_wing_has_a_floor():
    assert {wing_of(p) for p in files()} <= set(FLOORS)


@pytest.mark.parametrize("library", ROOMS)
def test_an_outside_library_has_its_one_room(library):
    users = {str(p.relative_to(ROOT)) for p in files() if any(n.split(".")[0] == library for n in imports(p))}
    assert users - SCRIPTS == ROOMS[library]


def test_torch_distributed_has_its_one_room():
    users = {str(p.relative_to(ROOT)) for p in files() if any(n.startswith("torch.distributed") for n in imports(p))}
    assert users == {"saescale/training/parallel.py"}


def test_campaign_never_imports_training():
    assert not [p for p in files() if wing_of(p) == "campaign" for n in imports(p) if n.startswith("saescale.training")]


def test_only_the_door_and_the_study_import_analysis():
    users = {wing_of(p) for p in files() for n in imports(p) if n.split(".")[0] == "analysis"}
    assert users <= {"cli", "cli_laws", "cli_predict", "cli_latents", "study", "published", "analysis"}


def test_analysis_meets_saescale_only_at_records_and_the_ground():
    met = {wing(n) for p in files() if wing_of(p) == "analysis" for n in imports(p) if n.startswith("saescale")}
    assert met <= {"records", "conditions", "config", "identity", "science", "flops", "__init__"}


def test_only_what_trains_and_measures_names_torch():
    heavy = {"training", "measure", "activations", "sae", "bundled_lm"}
    assert not [(str(p), n) for p in files() if wing_of(p) not in heavy for n in imports(p)
                if n.split(".")[0] in ("torch", "transformers", "transformer_lens")]


def test_files_are_short_enough_to_read():
    long = {str(p.relative_to(ROOT)): n for p in files() if (n := len(p.read_text().splitlines())) > 300}
    assert not long
