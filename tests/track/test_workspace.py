import json
import os
from pathlib import Path

import pytest
from made import make

from saescale.track import follow
from saescale.track.tracked import Book, planned

GOLDEN = Path(__file__).with_name("workspace.json")


@pytest.fixture
def space(tmp_path):
    from saescale.track.workspace import workspace

    made = make(tmp_path)
    return workspace(planned(made.store, "tiny"), Book(tmp_path), "lab", "saescale")


def test_the_printed_workspace_is_the_golden_one(space):
    from saescale.track.workspace import spec

    found = json.dumps(spec(space), indent=1, sort_keys=True) + "\n"
    if os.environ.get("SAESCALE_WRITE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text(), "SAESCALE_WRITE_GOLDEN=1 writes it again: read the difference before committing it"


def test_the_axes_of_scaling_are_logarithmic_and_the_filter_is_the_sweep(space):
    from saescale.track.workspace import spec

    found = spec(space)["spec"]
    panels = {p["config"]["chartTitle"]: p["config"] for s in found["section"]["panelBankConfig"]["sections"] for p in s["panels"]
              if "chartTitle" in p["config"]}
    for title, x in (("training loss against compute", "flops_dense"), ("training loss against tokens", "tokens")):
        assert (panels[title]["xAxis"], panels[title]["xLogScale"], panels[title]["yLogScale"]) == (x, True, True)
    valleys = next(c for title, c in panels.items() if title.startswith("iso-FLOP"))
    assert (valleys["xAxis"], valleys["yAxis"], valleys["zAxis"]) == ("config:sae.value.n_latents", "summary:objective",
                                                                     "config:budget_flops.value")
    assert '"value": "tiny"' in json.dumps(found["section"]["runSets"])


def test_runs_of_one_size_have_one_colour_and_other_sizes_have_others():
    from saescale.track.workspace import size_colours

    colours = size_colours([1024, 16, 256, 16])
    assert set(colours) == {16, 256, 1024} and len(set(colours.values())) == 3


def test_the_grid_shows_what_varies_and_nothing_else(tmp_path):
    from dataclasses import replace

    from saescale.track.workspace import varying

    run = planned(make(tmp_path).store, "tiny")[0]
    other = replace(run, science={**run.science, "sae": {**run.science["sae"], "n_latents": 32, "kind": "batchtopk"}})
    assert varying([run, other]) == ["sae.n_latents", "budget_flops", "sae.kind"]
    assert varying([replace(run, target_flops=None)]) == ["sae.n_latents"]


def test_dashboard_prints_without_a_server_and_names_the_next_step(made, home, saescale):  # noqa: ARG001
    code, out, _ = saescale("dashboard", "tiny")
    assert code == 0 and "iso-FLOP valleys" in out and "saescale dashboard tiny --push" in out
    code, out, _ = saescale("dashboard", "tiny", "--print", "track.project=mine")
    assert code == 0 and json.loads(out)["project"] == "mine"


def test_without_wandb_workspaces_a_dashboard_is_refused_in_one_sentence(made, saescale, monkeypatch):  # noqa: ARG001
    def missing(_):
        raise follow.PackageNotFoundError

    monkeypatch.setattr(follow, "version", missing)
    code, _, err = saescale("dashboard", "tiny")
    assert code == 2 and "pip install 'saescale[dashboard]'" in err


def test_a_dashboard_of_a_sweep_never_planned_is_refused(project, saescale):  # noqa: ARG001
    code, _, err = saescale("dashboard", "tiny")
    assert code == 2 and "has no plan" in err
