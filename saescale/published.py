"""A study as it is published: a folder small enough for git, from which every law and figure is made again without the store.

    study.json      the question, the commands, runs by state, machines and hours, version; what makes the folder a study
    table.csv       one row per planned run
    fits.json       every law; firing.json is the part of it that needs the store
    concepts.parquet, concepts.json, cosine/, others/, and the record of a figure (splitting.json ...)   where the sweep has them
    prediction.json, verdict.json, ...   kept as they lie: what was said before the largest budget was trained, and how it went
    figures/        each as SVG and PNG
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import saescale
from saescale.campaign.attempts import attempt_seconds, attempts
from saescale.campaign.snapshot import commit
from saescale.records.store import read_json, write_json
from saescale.study import PUBLISHED, Study

OF_THE_STORE = ("firing", "versions", "inputs")  # of fits.json: what tables alone do not give, and what names versions and files
SAME = 1e-6  # relative: fits that are made again


@dataclass(frozen=True)
class Published(Study):
    """A published folder, read like a sweep's. Its fits and figures can be made again; runs cannot be collected into it."""

    @classmethod
    def at(cls, folder: Path, overrides: Sequence[str]) -> Published:
        if overrides:
            raise ValueError(f"{folder} is a published study and takes no overrides: {' '.join(overrides)} belongs to sweeps.")
        return cls(str(folder), folder, folder, {"runs": [], **read_json(folder / PUBLISHED)})

    @property
    def is_published(self) -> bool:
        return True

    @property
    def figures_folder(self) -> Path:
        return self.path("figures")

    def firing(self, table: Any) -> dict[str, Any]:  # noqa: ARG002
        return read_json(self.path("firing.json"))

    def figures(self) -> list[dict[str, Any]]:
        return self.drawn()

    def collect(self) -> Any:
        raise ValueError(f"{self.folder} is a published study: its runs lie in the store of whoever trained them. "
                         "Name the sweep instead.")

    report = collect

    def fit(self) -> dict[str, Any]:
        """Fit all laws again. Raises ValueError, naming where, when they are not those of fits.json; nothing is written."""
        fits = self.fitted()
        different = [where for where, *_ in differences(self.fits(), fits)]
        if different:
            raise ValueError(f"{self.path('fits.json')} is not what its tables give: {len(different)} numbers differ by over "
                             f"{SAME:g}, the first at {different[0]}. Publish the study again, or find out what changed.")
        return fits


def publish(study: Study, folder: Path, commands: Sequence[str]) -> Published:
    """Copy the tables, fits and figures of a sweep to `folder`, with what they came from. What else lies there is kept.

    Raises ValueError where the sweep has not been fitted since its tables were made, or where the folder holds another study: of
    another sweep, or of this one with other overrides, or files of these names that are no study's.
    """
    from analysis.figures import RECORD_FIGURES

    name, other = study.folder.name, read_json(folder / PUBLISHED) or {}
    there = other.get("folder", other.get("sweep"))  # without "folder": published by an older version
    if other and there != (name if "folder" in other else name.split("+")[0]):
        raise ValueError(f"{folder} holds the study of {there}, not of {name}: choose another folder with --to, or remove its "
                         f"{PUBLISHED} first.")
    table, fits = study.table(), study.fits()
    if fits.get("inputs") != study.inputs_hash():
        raise ValueError(f"{study.path('fits.json')} was not made from the tables that lie beside it now. Run `saescale fit "
                         f"{study.again}` first.")
    records = (f"{name}.json" for name in RECORD_FIGURES if study.path(f"{name}.json").exists())
    said = about(study, table, commands)  # before the first file: what is written here is no edit of the code that trained
    files = (*study.inputs(), "fits.json", *records)
    taken = [] if other else [file for file in (*files, "firing.json") if (folder / file).exists()]
    if taken:
        raise ValueError(f"{folder / taken[0]} is there, and {folder} is no published study, so the file is not overwritten: "
                         "give a new folder with --to.")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(study.path(file), folder / file)
    write_json(folder / "firing.json", fits["firing"])
    write_json(folder / PUBLISHED, said)
    found = Published.at(folder, ())
    found.figures()
    return found


def about(study: Study, table: Any, commands: Sequence[str]) -> dict[str, Any]:
    """What study.json says. Absolute paths stand as /path/to/NAME: where things lay on one machine tells nobody anything."""
    from analysis.report_made import environments

    done = [str(run) for run in table.loc[table["state"] == "done", "run_id"]]
    name = study.folder.name
    return {"sweep": name.split("+")[0], "folder": name, "question": study.plan.get("question"),
            "commands": [without_paths(c) for c in commands],
            "concepts": study.plan.get("concepts") or {},
            "runs": {str(state): int(n) for state, n in table["state"].value_counts().sort_index().items()},
            "process_hours": process_hours(study, set(table["run_id"])),
            "environments": environments(study.root, done), "version": saescale.__version__, **commit()}


def process_hours(study: Study, run_ids: set[str]) -> dict[str, float]:
    """Hours that processes spent in the jobs of these runs, by stage; failed attempts count. A job may serve other sweeps too."""
    configs = (read_json(study.store.run_dir(run) / "config.json") or {} for run in run_ids)
    caches = {c.get("execution", {}).get("cache_key") for c in configs}
    hours: Counter[str] = Counter()
    for job in sorted((study.root / "jobs").glob("*")):
        content = read_json(job / "job.json") or {}
        runs = {*content.get("runs", ()), *(d["run_id"] for d in content.get("dictionaries", ()))}
        if runs & run_ids or caches & set(content.get("hooks", {}).values()):
            spent = sum(attempt_seconds(attempt) for attempt, _ in attempts(job))
            hours[content["stage"]] += spent * content.get("n_ranks", 1) / 3600
    return {stage: round(spent, 3) for stage, spent in hours.items()}


def without_paths(command: str) -> str:
    """The command with absolute paths as /path/to/NAME."""
    def shown(word: str) -> str:
        head, sign, value = word.rpartition("=")
        return f"{head}{sign}/path/to/{Path(value).name}" if value.startswith("/") else word

    return " ".join(map(shown, command.split(" ")))


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place where two JSON values differ: numbers by more than SAME of the larger (and 1e-7), all else at all."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if not (where == "" and name in OF_THE_STORE):
                yield from differences(old.get(name), new.get(name), f"{where}.{name}" if where else name)
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{where}[{i}]")
    elif _numbers(old, new):
        if not math.isclose(old, new, rel_tol=SAME, abs_tol=1e-7):
            yield where, old, new
    elif old != new:
        yield where, old, new


def _numbers(*values: Any) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
