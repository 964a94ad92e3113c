"""What a terminal of 80 and of 200 columns shows, with and without colour, and what a pipe gets."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pyte
import pytest
from rich.console import Console

from saescale import screen, screen_status
from saescale.campaign.plan import make_plan
from saescale.campaign.status import RunState
from saescale.campaign.sweep import load
from saescale.records.store import Store

COLOUR = re.compile(rb"\x1b\[[0-9;]*(3[0-79]|9[0-7]|38;)")
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f]")
PLAN = ("-m", "saescale.cli", "plan", "tiny")
PROGRESS = ("-c", """import time
from saescale import screen
screen.PLAIN_S = 0
with screen.progress() as bars:
    for done in range(0, 60, 10):
        bars.stage("train", done, 100, "3 trunks, at 0.29M tokens " + 20 * "of very many ")
        time.sleep(0.02)
    time.sleep(0.3)
""")


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "TERM")}
    return kept | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | changes


def in_terminal(arguments, columns: int, rows: int = 60, **changes: str) -> tuple[bytes, list[list[str]]]:
    """What a command writes to a terminal of this size, and the screens it showed, as lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    with subprocess.Popen([sys.executable, *arguments], env=environment(**changes), **streams) as run:
        os.close(theirs)
        terminal, written, shown, deadline = pyte.Screen(columns, rows), b"", [], time.monotonic() + 120
        stream = pyte.ByteStream(terminal)
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            stream.feed(part)
            written += part
            shown.append([line.rstrip() for line in terminal.display if line.strip()])
    os.close(ours)
    assert run.returncode == 0, written.decode(errors="replace")
    return written, shown


def in_pipe(arguments) -> bytes:
    return subprocess.run([sys.executable, *arguments], env=environment(), stdout=subprocess.PIPE, check=True, timeout=120).stdout


@pytest.mark.parametrize("columns", [80, 200])
def test_a_plan_keeps_its_words_whole_at_any_width(project, columns):  # noqa: ARG001 (the working directory)
    _, shown = in_terminal(PLAN, columns)
    words, said = (re.sub(r"of [\d.]+ GB", "", " ".join(text.split())) for text in (" ".join(shown[-1]), in_pipe(PLAN).decode()))
    assert words == said  # but for the memory that is free just now


def test_colours_are_for_terminals_that_want_them(project):  # noqa: ARG001
    assert COLOUR.search(in_terminal(PLAN, 80)[0]) is None  # a plan that refuses nothing is black on white
    refused = (*PLAN, "budget.min_steps=100")
    assert COLOUR.search(in_terminal(refused, 80)[0])
    assert COLOUR.search(in_terminal(refused, 80, NO_COLOR="1")[0]) is None


def test_a_pipe_gets_no_control_characters(project):  # noqa: ARG001
    for arguments in (PLAN, PROGRESS):
        assert CONTROL.search(in_pipe(arguments)) is None


@pytest.mark.parametrize("columns", [80, 200])
def test_progress_is_one_line_with_its_share_and_eta(columns):
    _, shown = in_terminal(PROGRESS, columns, rows=10)
    lines = [screen_ for screen_ in shown if screen_]
    assert all(len(lines_) == 1 for lines_ in lines)
    assert re.search(r"train dictionaries .* 50% +\d+ s, eta \d+ s", lines[-1][0])
    assert len(lines[-1][0]) <= columns and lines[-1][0].endswith("…")


def test_piped_progress_is_a_line_for_each_tenth():
    lines = in_pipe(PROGRESS).decode().splitlines()
    assert lines[0] == "train dictionaries ..."
    assert [int(re.search(r"(\d+)%", line).group(1)) for line in lines[1:]] == [10, 20, 30, 40, 50]
    assert all("eta" in line for line in lines[1:])


@pytest.fixture
def under_way(project):
    """A sweep whose runs all train, and how each stands."""
    runs = make_plan(load("tiny", []), Store(project.store)).runs
    said = {"tokens": 5000, "n_tokens": 10000, "tokens_per_s": 5720.0, "heartbeat": time.time()}
    found = {r.run_id: RunState("running", "process 8258 on a-machine-with-a-name", said) for r in runs}
    return screen_status.View("tiny", runs, "tiny", failed=False), found


def rendered(view, found, monkeypatch, columns: int, most: int = 30) -> list[str]:
    """What `status` draws on a terminal of so many columns."""
    console = Console(width=columns, height=40, force_terminal=True, no_color=True, highlight=False)
    for module in (screen, screen_status):
        monkeypatch.setattr(module, "console", console)
    with console.capture() as captured:
        console.print(screen_status.render(view, found, most))
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).splitlines()


@pytest.mark.parametrize("columns", [80, 200])
def test_status_names_every_run_whole_with_its_speed_and_eta(under_way, monkeypatch, columns):
    lines = rendered(*under_way, monkeypatch, columns)
    assert all(len(line.rstrip()) <= columns for line in lines)
    for run in under_way[0].runs:
        (line,) = [line for line in lines if run.run_id in line]
        assert re.search(r"5\d%.* 5\.72k.*/s +eta 1 s", line)
        assert ("process 8258" in line) == (columns == 200)
    assert any("8 running" in line and "to go" in line for line in lines)


def test_status_says_how_many_it_leaves_out_of_a_low_screen(under_way, monkeypatch):
    lines = rendered(*under_way, monkeypatch, 80, most=3)
    assert sum("eta" in line for line in lines) == 3 and "... and 5 more under way" in [line.rstrip() for line in lines]
