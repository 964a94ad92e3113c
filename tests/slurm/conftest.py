"""For the tests on a real Slurm: one cluster for all of them, and a project with the sweep of sixty runs."""

from __future__ import annotations

import os
from pathlib import Path

import one_host
import pytest
from lab import SIXTY, Lab, slowed


@pytest.fixture(scope="session")
def cluster():
    """A Slurm with accounting, 4 nodes of 2 cores and 2 fake GPUs, and MaxArraySize 5."""
    if not os.environ.get("SAESCALE_SLURM"):
        pytest.skip("`make test-slurm` starts a Slurm on this host for it")
    if why := one_host.why_not():
        pytest.fail(f"SAESCALE_SLURM is set and there can be no cluster: {why}")
    host = one_host.OneHost()
    try:
        yield host.up()
    finally:
        host.down()


@pytest.fixture(scope="session")
def project_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "sweeps").mkdir()
    (root / "sweeps" / "sixty.yaml").write_text(SIXTY)
    return root


@pytest.fixture
def lab(cluster: one_host.OneHost, project_root, tmp_path) -> Lab:  # noqa: ARG001 - it must be up
    return Lab(project_root, tmp_path / "runs")


@pytest.fixture(scope="session")
def undisturbed(cluster: one_host.OneHost, project_root, tmp_path_factory) -> Lab:  # noqa: ARG001
    """The sixty runs, launched once and left alone until the queue is empty."""
    lab = Lab(project_root, tmp_path_factory.mktemp("undisturbed") / "runs")
    lab.launched = lab.run("launch", "sixty")
    lab.settle()
    return lab


@pytest.fixture
def slow_blocks(tmp_path) -> dict[str, str]:
    """Environment in which a run takes ten seconds at least, on however fast a machine."""
    return slowed(tmp_path / "slow", 0.6)
