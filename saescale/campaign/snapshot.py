"""A copy of the code a launch runs, by its content: editing the tree afterwards changes no queued job."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import saescale
from saescale.campaign import folders
from saescale.campaign.folders import PACKAGE
from saescale.records.store import Store, write_json

LEFT_OUT = {"__pycache__", ".git", ".pytest_cache"}


def take(store: Store) -> dict[str, Any]:
    """Copy saescale, analysis, conf and sweeps to runs/code/<hash>/; returns what there is to say about it."""
    files = source_files()
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    folder = store.root / "code" / digest.hexdigest()[:12]
    about = {"folder": str(folder), "tree": digest.hexdigest(), "version": saescale.__version__, **commit()}
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        for name, path in files.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, aside / name)
        write_json(aside / "snapshot.json", about)
        try:
            aside.rename(folder)
        except OSError:  # somebody else was first with the same content
            shutil.rmtree(aside)
            if not folder.exists():
                raise
    return about


def source_files() -> dict[str, Path]:
    """Path within the snapshot -> file, of all a job may need."""
    roots = {"saescale": PACKAGE}
    beside = PACKAGE.parent / "analysis"
    if beside.is_dir():
        roots["analysis"] = beside
    found = {str(Path(name) / path): file for name in ("conf", "sweeps") for path, file in folders.files(name).items()}
    for name, root in roots.items():
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(s for s in subfolders if s not in LEFT_OUT)
            for n in names:
                if not n.endswith((".pyc", ".nbi", ".nbc")):
                    path = Path(folder, n)
                    found[str(Path(name) / path.relative_to(root))] = path
    return found


def commit() -> dict[str, Any]:
    """The commit of the tree saescale is run from, and whether files differ from it; None where there is no git."""
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(PACKAGE.parent), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "edited": None if changed is None else bool(changed)}
