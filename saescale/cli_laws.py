"""The door to the laws: fit and isoflop, for any CSV of sizes, tokens and losses or for a sweep's own runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from saescale.door import RUNS, Overrides, StoreRoot

TABLES = (".csv", ".tsv", ".txt")

Source = Annotated[str, typer.Argument(metavar="SWEEP|TABLE.csv", help="Name of a file in sweeps/, or any CSV with a header.")]
Columns = Annotated[str | None, typer.Option("--columns", metavar="NAME=COLUMN,...", help="N=params,D=tokens,loss=loss")]
Where = Annotated[str | None, typer.Option("--where", metavar="CONDITION", help="Rows to keep, as in 'C < 3e20 and N > 1e8'.")]
Compute = Annotated[str | None, typer.Option("--compute", metavar="RULE", help="Counting rule: 6*N*D (default), 12*768*N*D ...")]
Cluster = Annotated[str | None, typer.Option("--cluster", metavar="COLUMN", help="Rows that agree in it are not independent.")]
Draws = Annotated[int, typer.Option("--draws", help="Bootstrap resamples.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the resamples.")]
Delta = Annotated[float | None, typer.Option("--delta", help="Huber's threshold in ln loss; from the data if absent.")]
Figures = Annotated[Path | None, typer.Option("--figures", metavar="FOLDER", help="Draw into this folder, as SVG and PNG.")]
JsonOut = Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the result as JSON; - for standard output.")]
LawName = Annotated[str | None, typer.Option("--law", help="nd, nd_tied, nd_kaplan, nd_interaction, power, broken, nk, lr ...")]


@dataclass(frozen=True)
class Asked:
    """What rows were asked for: `source` as typed, and how its columns are read."""

    source: str
    overrides: tuple[str, ...]
    store: Path
    columns: str | None = None
    where: str | None = None
    compute: str | None = None
    cluster: str | None = None

    @property
    def is_table(self) -> bool:
        is_path = self.source.endswith(TABLES) or "/" in self.source or Path(self.source).is_file()
        return is_path and not self.is_published

    @property
    def is_published(self) -> bool:
        return (Path(self.source) / "study.json").is_file()

    @property
    def again(self) -> str:
        """The source, its columns and its store as the user may type them again."""
        options = (("--columns", self.columns), ("--where", self.where), ("--compute", self.compute), ("--cluster", self.cluster))
        store = [("--store", str(self.store))] if self.store != RUNS and not self.is_table else []
        typed = [part for name, value in (*options, *store) if value for part in (name, value)]
        return shlex.join([self.source, *self.overrides, *typed])


def fit(source: Source, overrides: Overrides = None, store: StoreRoot = RUNS, law: LawName = None, columns: Columns = None,
        objective: Annotated[str, typer.Option("--objective", help="huber, lad or squared, on ln loss.")] = "huber",
        delta: Delta = None, where: Where = None,
        compute: Compute = None, cluster: Cluster = None, draws: Draws = 2000, seed: Seed = 0,
        json: JsonOut = None, figures: Figures = None) -> None:
    """Fit laws: those of a collected sweep (writes fits.json), or --law to a table or to a sweep's runs."""
    asked = Asked(source, tuple(overrides or ()), store, columns, where, compute, cluster)
    if law is None and not asked.is_table:
        return _fit_sweep(asked, json)
    from analysis import fit as fit_law
    from analysis.laws import find
    from analysis.sweep_laws import below_largest

    if law == "convergence":
        return _fit_convergence(asked, {"objective": objective, "delta": delta, "draws": draws, "seed": seed}, json)
    found = find(law or "nd")
    may_write(json)
    rows, by = points(asked, [*found.columns, found.y], every_rate=found.name == "lr")
    result = fit_law(found, rows, objective=objective, delta=delta, cluster=by, draws=draws, seed=seed)
    surface = {"N", "D"} <= set(found.columns) and "C" in rows
    following = f"saescale isoflop {asked.again}" if surface else None
    if figures and surface:
        fits = {"surface": {"fit": result.to_dict(), "below": below_largest(rows, found, by, seed)}}
        draw(figures, rows, fits, ("law_fit", "residuals"))
    give(result.to_dict() | _read(rows), f"{heading(rows)}\n{result.summary()}", json, following)
    return None


def isoflop(source: Source, overrides: Overrides = None, store: StoreRoot = RUNS, columns: Columns = None,
            degree: Annotated[int, typer.Option("--degree", help="3: cubic in ln N; 2: parabola, biased.")] = 3,
            scale: Annotated[str | None, typer.Option("--scale", help="What is fitted: loss or ln_loss.")] = None,
            sizes: Annotated[int | None, typer.Option("--sizes", help="Use only so many sizes around the lowest.")] = None,
            tolerance: Annotated[float, typer.Option("--tolerance", help="Rows whose C agree this far are one budget.")] = 0.1,
            where: Where = None, compute: Compute = None, cluster: Cluster = None, draws: Draws = 2000, seed: Seed = 0,
            json: JsonOut = None, figures: Figures = None) -> None:
    """Find the best size of each compute budget, and how it moves with compute."""
    from analysis import isoflop as find_valleys

    asked = Asked(source, tuple(overrides or ()), store, columns, where, compute, cluster)
    may_write(json)
    rows, by = points(asked, ["N", "D", "loss"])
    own = {} if asked.is_table else {"scale": "ln_loss", "sizes": 5}  # a sweep's valleys are deep: see docs/fitting.md
    given = {name: value for name, value in (("scale", scale), ("sizes", sizes)) if value is not None}
    found = find_valleys(rows, degree=degree, tolerance=tolerance, cluster=by, draws=draws, seed=seed, **own | given)
    following = f"saescale predict {asked.again} --flops {4 * float(rows['C'].max()):.3g}"
    if figures:
        draw(figures, rows, {"isoflop": found.to_dict()}, ("valleys",))
    give(found.to_dict(), f"{heading(rows)}\n{found.summary()}", json, following)


def points(asked: Asked, needs: Sequence[str], every_rate: bool = False) -> tuple[Any, str | None]:
    """The rows as a law's columns, and the column to cluster by: a sweep's is its trunk."""
    from analysis import read_points
    from analysis.reading import parse_columns

    if asked.is_table:
        if asked.overrides:
            raise ValueError(f"{asked.source} is a table and takes no overrides: {' '.join(asked.overrides)} belongs to sweeps.")
        how = {"where": asked.where, "compute": asked.compute}
        rows = read_points(Path(asked.source), parse_columns(asked.columns), needs=needs, **how)
        if asked.cluster and asked.cluster not in rows:
            there = ", ".join(map(str, rows.columns))
            raise ValueError(f"{asked.source} has no column {asked.cluster!r} to cluster by: it has {there}.")
        return rows, asked.cluster
    if asked.columns or asked.compute:
        raise ValueError(f"{asked.source} is a sweep, whose columns are known: --columns and --compute are for tables.")
    from analysis.reading import points as select
    from analysis.sweep_points import CLUSTER, sweep_points
    from saescale.study import Study

    table = Study.of(asked.source, asked.overrides, asked.store).table()
    rows = sweep_points(table, every_rate=every_rate, every_k="K" in needs)
    return (select(rows, needs=needs, where=asked.where, source=asked.source) if asked.where else rows), asked.cluster or CLUSTER


def _fit_convergence(asked: Asked, how: dict[str, Any], json: Path | None) -> None:
    """Loss and tokens at convergence against size, by the stop rule of analysis.convergence."""
    from analysis import fit as fit_law

    may_write(json)
    rows, _ = points(asked, ["N", "D", "loss"])
    result = fit_law("convergence", rows, **how)
    page = f"{heading(rows)}\n{result.summary()}\ntokens to convergence against size:\n{result.parts['tokens'].summary()}"
    give(result.to_dict() | _read(rows), page, json, None)


def _fit_sweep(asked: Asked, json: Path | None) -> None:
    """Every law of a collected sweep, into its fits.json."""
    from saescale import screen
    from saescale.study import Study

    study = Study.of(asked.source, asked.overrides, asked.store)
    may_write(json)
    fits = study.fit()
    if json:
        return give(fits, f"{study.path('fits.json')} written.", json, None)
    if study.is_published:
        screen.say(f"{study.path('fits.json')} comes out of its tables again.", None)
    return screen.show_laws(study.exponents(fits), f"saescale figures {asked.again}", study.answer_of_kinds(fits))


def draw(folder: Path, rows: Any, fits: dict[str, Any], names: Sequence[str]) -> None:
    from analysis import figures

    for name in names:
        drawn = figures.write(name, folder, rows, fits)
        print(f"{folder / drawn['svg']}, {drawn['png']}: {drawn['title']}")


def heading(rows: Any) -> str:
    about = rows.attrs
    named = ", ".join(f"{name}={column}" for name, column in about["columns"].items())
    kept = f"; {about['dropped']} rows left out by {about['where']!r}" if about["where"] else ""
    return f"{about['source']}: {len(rows)} rows{kept}. {about['compute']}" + (f". {named}" if named else "")


def _read(rows: Any) -> dict[str, Any]:
    """How the table was read, beside a fit."""
    about = rows.attrs
    return {"table": {name: about[name] for name in ("source", "columns", "where", "dropped", "compute", "warnings")}}


def may_write(json: Path | None) -> None:
    """Refused before any work: a file that is there is not overwritten."""
    if json is not None and str(json) != "-":
        if json.exists():
            raise ValueError(f"{json} exists and is not overwritten: choose another name, or remove it first.")
        if not json.parent.is_dir():
            raise ValueError(f"There is no folder {json.parent}: make it first.")


def give(record: dict[str, Any], page: str, json: Path | None, following: str | None) -> None:
    """The page and the next command; or the record alone, to standard output or into a new file."""
    from json import dumps

    from saescale.records.store import write_json

    if json is not None and str(json) == "-":
        print(dumps(record, indent=1, allow_nan=False, default=str))
        return
    print(page)
    if json is not None:
        write_json(json, record)
        print(f"{json} written.")
    if following:
        print(f"next: {following}")
