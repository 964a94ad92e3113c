"""`saescale dashboard --push` against the server on loopback, in a process of its own as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from fake_server import KEY
from made import metric_row

pytestmark = pytest.mark.wandb


def push(project, *arguments):
    said = subprocess.run([sys.executable, "-m", "saescale.cli", "dashboard", "tiny", "--push", *arguments], cwd=project.root,
                          capture_output=True, text=True, timeout=120)
    return said.returncode, said.stdout, said.stderr


@pytest.fixture
def concluded(made, project, saescale):
    """Two records, their table and fits, and a figure."""
    for seed in made.runs:
        made.log(seed, [metric_row(100)])
        made.finish(seed)
    assert saescale("collect", "tiny")[0] == 0
    saescale("fit", "tiny")
    return made, project


def test_the_workspace_and_the_laws_arrive_and_a_second_push_changes_them_in_place(concluded, server, home):
    made, project = concluded
    figures = made.store.sweep_dir("tiny") / "report" / "figures"
    figures.mkdir(parents=True)
    from matplotlib.figure import Figure

    Figure((1, 1)).savefig(figures / "valleys.png")
    code, out, err = push(project)
    assert code == 0, err
    assert f"workspace: {server.url}" in out and "laws, table and figures sent" in out
    (view,) = server.views
    assert "iso-FLOP valleys" in json.dumps(view)
    laws = next(r for name, r in server.runs.items() if name.startswith("tiny-laws-"))
    (row,) = laws.rows
    assert (laws.said("jobType"), laws.said("groupName"), laws.config["question"]) == ("laws", "tiny", "How small?")
    assert row["table"]["_type"] == "table-file" and row["table"]["nrows"] == 2
    assert row["exponents"]["nrows"] > 0 and row["figures"]["captions"] == ["valleys"]
    assert any(name.startswith("media/images") and data.startswith(b"\x89PNG") for name, data in laws.files.items())
    code, out, _ = push(project)
    assert code == 0 and "unchanged" in out and len(laws.rows) == 1
    assert server.views[1]["id"] == "view"  # the same one, written over
    assert not [p for p in (*project.root.rglob("*"), *home.rglob("*")) if p.is_file() and KEY.encode() in p.read_bytes()]


def test_a_server_that_refuses_is_one_sentence(made, project, server):  # noqa: ARG001
    server.trouble = "refuse"
    code, _, err = push(project)
    assert code == 2 and "refuses the wandb key" in err and "Traceback" not in err
