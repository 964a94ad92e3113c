"""For the tests of tracking: a server on loopback, and an environment that has a key of its own and nothing of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import KEY, FakeServer
from made import Made, make


def pytest_collection_modifyitems(items) -> None:
    if not os.environ.get("SAESCALE_WANDB"):
        for item in items:
            if item.get_closest_marker("wandb"):
                item.add_marker(pytest.mark.skip(reason="`make test-wandb` runs wandb's own processes for it"))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home, no settings of wandb, no key."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def server(home, monkeypatch) -> Iterator[FakeServer]:  # noqa: ARG001 - nothing of the user's
    fake = FakeServer()
    monkeypatch.setenv("WANDB_BASE_URL", fake.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield fake
    fake.close()


@pytest.fixture
def made(project) -> Made:
    return make(project.store)
