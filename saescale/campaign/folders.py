"""conf/ and sweeps/: the project's own files first, then those installed with saescale.

A study outside a checkout keeps only what it changes: a file of the working directory stands in front of the installed one of the
same name, and everything else is found behind it.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
DATA = {"concepts"}  # folders of conf/ that hold data and are no group of settings


def folders(name: str) -> list[Path]:
    """Where `conf` or `sweeps` are looked for, the stronger first: the working directory, what was installed."""
    own, behind = Path.cwd() / name, installed(name)
    return [own, behind] if _has_yaml(own) and not own.samefile(behind) else [behind]


def installed(name: str) -> Path:
    """`conf` or `sweeps` of the checkout saescale runs from, or of the installed package."""
    found = [folder for folder in (PACKAGE.parent / name, PACKAGE / name) if _has_yaml(folder)]
    if not found:
        raise ValueError(f"{PACKAGE} was installed without its {name}/ folder. Install saescale again.")
    return found[0]


def files(name: str) -> dict[Path, Path]:
    """Path below `conf` or `sweeps` -> the YAML file that stands for it, in order of the paths."""
    found: dict[Path, Path] = {}
    for folder in folders(name):
        for path in folder.rglob("*.yaml"):
            found.setdefault(path.relative_to(folder), path)
    return dict(sorted(found.items()))


def _has_yaml(folder: Path) -> bool:
    return folder.is_dir() and any(folder.rglob("*.yaml"))
