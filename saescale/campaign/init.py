"""A new study: a folder with conf/, sweeps/ and a README, for work outside a checkout of saescale."""

from __future__ import annotations

import shutil
from pathlib import Path

from saescale.campaign import folders

TEMPLATE = folders.PACKAGE / "study_template"
SITE = Path("cluster/slurm.yaml")


def lay_down(folder: Path) -> list[Path]:
    """Writes the study into `folder`, which must be new or empty; gives the files, relative to it.

    conf/cluster/site.yaml is a copy of the installed Slurm settings, to be edited. Errors: `ValueError` when something is there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and not empty: a study begins in a new or an empty folder, so that nothing is "
                         "overwritten. Give another name.")
    shutil.copytree(TEMPLATE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    site = folder / "conf" / "cluster" / "site.yaml"
    site.parent.mkdir(parents=True)
    shutil.copyfile(folders.installed("conf") / SITE, site)
    (folder / ".gitignore").write_text("runs/\n")
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
