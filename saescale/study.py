"""After training: from a sweep's plan and records to its table, fits, figures and report. Reads records only, no torch."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import saescale
from saescale.campaign.snapshot import commit
from saescale.campaign.sweep import load
from saescale.identity import digest
from saescale.records.store import Store, read_json, write_json

PUBLISHED = "study.json"
TABLES = ("table.csv", "concepts.parquet", "concepts.json", "cosine/concepts.parquet", "cosine/concepts.json")


@dataclass(frozen=True)
class Study:
    """One sweep's folder in the store and the plan it was launched with."""

    again: str
    folder: Path
    root: Path
    plan: dict[str, Any]

    @classmethod
    def of(cls, sweep: str, overrides: Sequence[str], root: Path) -> Study:
        """The sweep of this name, or the published study that lies in this folder."""
        if (Path(sweep) / PUBLISHED).is_file():
            from saescale.published import Published

            return Published.at(Path(sweep), overrides)
        name = load(sweep, overrides).folder_name
        again = shlex.join([sweep, *overrides, *(["--store", str(root)] if root != Path("runs") else [])])
        folder = Store(root.absolute()).sweep_dir(name)
        plan = read_json(folder / "plan.json")
        if plan is None:
            raise ValueError(f"{name} has no plan in {root}. Run `saescale launch {again}` first.")
        return cls(again, folder, root.absolute(), plan)

    @property
    def store(self) -> Store:
        return Store(self.root)

    def path(self, name: str) -> Path:
        return self.folder / name

    def inputs(self) -> list[str]:
        """What lies here of the files that laws are fitted to, by their names in the folder."""
        others = sorted(str(path.relative_to(self.folder)) for path in self.path("others").glob("*.json"))
        return [name for name in (*TABLES, *others) if self.path(name).exists()]

    def inputs_hash(self) -> str:
        """Of their names and bytes: fits.json keeps that of the tables it was made from."""
        files = [[name, hashlib.sha256(self.path(name).read_bytes()).hexdigest()] for name in self.inputs()]
        return digest(files)[:16]

    def collect(self) -> Any:
        from analysis.tables import build_table, write_table

        table = build_table(self.plan, self.root)
        write_table(table, self.path("table.csv"))
        return table

    def table(self) -> Any:
        from analysis.tables import read_table

        if not self.path("table.csv").exists():
            raise ValueError(f"{self.path('table.csv')} is not there. Run `saescale collect {self.again}` first.")
        return read_table(self.path("table.csv"))

    def concepts(self) -> tuple[Any, dict[str, Any]] | None:
        """(table, what concepts.json says of it), with the score the sweep's law is fitted to; None where nothing was scored."""
        from saescale.records.concepts import read

        found = read(self.folder)
        if found is not None and self.plan.get("concepts", {}).get("prevalence") == "text":
            found = found.at_text_prevalence()
        return None if found is None else (found.table, found.about)

    def truth(self) -> tuple[Any, dict[str, Any]] | None:
        """The same by the known directions of synthetic features; None for text."""
        from saescale.records.concepts import read

        found = read(self.folder / "cosine")
        return None if found is None else (found.table, found.about)

    def horizon(self, concepts: Any) -> int:
        """Training tokens of the largest dictionaries that were scored."""
        largest = concepts[concepts["n_latents"] == concepts.loc[concepts["dictionary"] == "trained", "n_latents"].max()]
        table = self.table()
        return int(table.loc[table["run_id"].isin(set(largest["run_id"])), "n_tokens"].max())

    @property
    def is_published(self) -> bool:
        return False

    @property
    def figures_folder(self) -> Path:
        return self.path("report/figures")

    def firing(self, table: Any) -> dict[str, Any]:
        from analysis.firing import firing

        return firing(table, self.root)

    def fit(self) -> dict[str, Any]:
        """Fit all laws and write fits.json."""
        fits = self.fitted() | {"inputs": self.inputs_hash()}
        write_json(self.path("fits.json"), fits)
        return fits

    def fitted(self) -> dict[str, Any]:
        from analysis.presence import fit_presence
        from analysis.sweep_fit import fit_sweep
        from analysis.sweep_laws import sweep_laws

        table = self.table()
        fits = fit_sweep(table) | sweep_laws(table) | {"firing": self.firing(table)}
        fits["others"] = [read_json(path) for path in sorted(self.path("others").glob("*.json"))]
        scored = self.concepts()
        if scored is not None:
            fits["presence"] = fit_presence(*scored)
        truth = self.truth()
        if truth is not None and scored is not None:
            from analysis.oracle import compare

            fits["oracle"] = compare(scored, truth, table)
        return fits

    def fits(self) -> dict[str, Any]:
        found = read_json(self.path("fits.json"))
        if found is None:
            raise ValueError(f"{self.path('fits.json')} is not there. Run `saescale fit {self.again}` first.")
        if not isinstance(found, dict) or "laws" not in found:
            raise ValueError(f"{self.path('fits.json')} holds no laws. Run `saescale fit {self.again}` first.")
        return found

    def presence_law(self, asked: str, value: Any, draws: int, seed: int) -> tuple[dict[str, Any], str]:
        """(record, page) of what `saescale predict` asks the law of presence: --frequency F, what a rare concept needs; --latents
        N,N, what larger dictionaries will hold."""
        scored = self._scored()
        if asked == "--frequency":
            from analysis.presence_reach import reach

            found = reach(*scored, value, self.horizon(scored[0]), draws=draws, seed=seed)
            return found.to_dict(), found.summary()
        from analysis import presence_forecast

        record = presence_forecast.foretell(*scored, presence_forecast.parse_sizes(value), draws=draws, seed=seed)
        return record | {"sweep": self.folder.name}, presence_forecast.page(record)

    def presence_verdict(self, said: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """(record, page) of how a forecast of presence came out."""
        from analysis import presence_forecast

        rows = presence_forecast.verify(said, *self._scored())
        return {"foretold_from": said.get("sweep"), "sizes": rows}, presence_forecast.outcome_page(rows)

    def _scored(self) -> tuple[Any, dict[str, Any]]:
        scored = self.concepts()
        if scored is None:
            raise ValueError(f"{self.folder.name} has no concepts. Run `saescale concepts {self.again}` first.")
        return scored

    def exponents(self, fits: dict[str, Any]) -> list[tuple]:
        from analysis.summary import exponent_rows

        return exponent_rows(fits)

    def answer_of_kinds(self, fits: dict[str, Any]) -> str:
        from analysis.summary import answer_of_kinds

        return answer_of_kinds(fits)

    def figures(self) -> list[dict[str, Any]]:
        """Draw every figure as SVG and PNG; returns what the report needs of each."""
        drawn = self.drawn()
        write_json(self.figures_folder / "figures.json", drawn)
        return drawn

    def drawn(self) -> list[dict[str, Any]]:
        from analysis import figures

        table, fits, folder = self.table(), self.fits(), self.figures_folder
        drawn = [figures.write(name, folder, table, fits) for name in figures.of_sweep(table, fits)]
        scored = self.concepts()
        if scored is not None and "presence" in fits:
            names = figures.CONCEPT_FIGURES if self.truth() is None else figures.FEATURE_FIGURES
            drawn += [figures.write(name, folder, scored[0], fits["presence"]) for name in names]
        compared = {name: read_json(self.path(f"{name}.json")) for name in figures.RECORD_FIGURES}
        return drawn + [figures.write(name, folder, found) for name, found in compared.items() if found is not None]

    def report(self) -> Path:
        from analysis.report import write_report
        from analysis.report_made import environments

        drawn = read_json(self.path("report/figures/figures.json"))
        if drawn is None:
            raise ValueError(f"no figures in {self.path('report/figures')}. Run `saescale figures {self.again}` first.")
        table = self.table()
        ids = [str(run_id) for run_id in table.loc[table["state"] == "done", "run_id"]]
        made = {"version": saescale.__version__, **commit(), "environments": environments(self.root, ids)}
        return write_report(self.folder, self.plan, table, self.fits(), drawn, made)
