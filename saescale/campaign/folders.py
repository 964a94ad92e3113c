"""The folders a person edits: `conf/` and `sweeps/`, of the project they stand in or as installed with saescale."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
DATA_FOLDERS = {"concepts"}  # of conf/: data, not a group of settings


def project_folder(name: str) -> Path:
    """`conf` or `sweeps`: of the working directory when it has one, else as installed with saescale."""
    for folder in (Path.cwd() / name, PACKAGE.parent / name, PACKAGE / name):
        if folder.is_dir() and list(folder.glob("*.yaml")):
            return folder
    raise ValueError(f"no {name}/ folder with YAML files here. Run saescale in a project with {name}/, "
                     "such as a checkout of saescale.")


def group_choices() -> dict[str, list[str]]:
    root = project_folder("conf")
    return {d.name: sorted(p.stem for p in d.glob("*.yaml")) for d in sorted(root.iterdir())
            if d.is_dir() and d.name not in DATA_FOLDERS}
