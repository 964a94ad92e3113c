"""The door to the laws: fit, isoflop and predict, for any CSV of sizes, tokens and losses or for a sweep's own runs."""

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
Like = Annotated[str | None, typer.Option("--like", metavar="SWEEP", help="For a table: the sweep whose settings it takes.")]
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
        return self.source.endswith(TABLES) or "/" in self.source or Path(self.source).is_file()

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
    _may_write(json)
    rows, by = points(asked, [*found.columns, found.y], every_rate=found.name == "lr")
    result = fit_law(found, rows, objective=objective, delta=delta, cluster=by, draws=draws, seed=seed)
    surface = {"N", "D"} <= set(found.columns) and "C" in rows
    following = f"saescale isoflop {asked.again}" if surface else None
    if figures and surface:
        fits = {"surface": {"fit": result.to_dict(), "below": below_largest(rows, found, by, seed)}}
        _draw(figures, rows, fits, ("law_fit", "residuals"))
    _give(result.to_dict() | _read(rows), f"{_heading(rows)}\n{result.summary()}", json, following)
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
    _may_write(json)
    rows, by = points(asked, ["N", "D", "loss"])
    own = {} if asked.is_table else {"scale": "ln_loss", "sizes": 5}  # a sweep's valleys are deep: see docs/fitting.md
    given = {name: value for name, value in (("scale", scale), ("sizes", sizes)) if value is not None}
    found = find_valleys(rows, degree=degree, tolerance=tolerance, cluster=by, draws=draws, seed=seed, **own | given)
    following = f"saescale predict {asked.again} --flops {4 * float(rows['C'].max()):.3g}"
    if figures:
        _draw(figures, rows, {"isoflop": found.to_dict()}, ("valleys",))
    _give(found.to_dict(), f"{_heading(rows)}\n{found.summary()}", json, following)


def predict(source: Source, overrides: Overrides = None, store: StoreRoot = RUNS, law: LawName = None, columns: Columns = None,
            at: Annotated[str | None, typer.Option("--at", metavar="N=...,D=...", help="Where: every column of the law.")] = None,
            flops: Annotated[float | None, typer.Option("--flops", help="Or a budget to split between N and D.")] = None,
            frequency: Annotated[float | None, typer.Option("--frequency", help="Or a concept's: what it asks for.")] = None,
            as_sweep: Annotated[Path | None, typer.Option("--as-sweep", metavar="sweeps/NEXT.yaml",
                                                          help="Write the sweep that would test it.")] = None,
            like: Like = None, where: Where = None,
            compute: Compute = None, cluster: Cluster = None, draws: Draws = 1000, seed: Seed = 0,
            json: JsonOut = None, figures: Figures = None) -> None:
    """Predict the loss at N and D, the best split of a budget, or what a rare concept asks for, with intervals."""
    from analysis.allocate import allocation
    from analysis.estimators import exponents
    from analysis.forecast import predict as foretell
    from analysis.laws import find

    asked = Asked(source, tuple(overrides or ()), store, columns, where, compute, cluster)
    _may_write(json)
    if frequency is not None:
        return _reach(asked, frequency, {"--at": at, "--flops": flops, "--as-sweep": as_sweep, "--law": law}, draws, seed, json)
    example = _like(asked, as_sweep, like, flops)
    chosen = find(law or ("nd" if asked.is_table else "nd_interaction"))
    rows, by = points(asked, [*chosen.columns, chosen.y])
    split = rates = None
    if flops is not None and flops > 0:
        own = {} if asked.is_table else {"scale": "ln_loss", "sizes": 5}
        from analysis import isoflop as find_valleys

        valleys = find_valleys(rows, cluster=by, draws=draws, seed=seed, **own)
        split = allocation(rows, law=chosen, valleys=valleys, cluster=by, flops=flops, draws=draws, seed=seed)
        rates = None if asked.is_table else _rates(asked)
    found = foretell(rows, at=_numbers(at), flops=flops, law=chosen, split=split, lr=rates, cluster=by, draws=draws, seed=seed)
    page = f"{_heading(rows)}\n{found.summary()}" + (f"\n{split.summary()}" if split else "")
    if figures and split:
        fits = {"isoflop": valleys.to_dict(), "allocation": split.to_dict()}
        fits["exponents"] = exponents(rows, chosen.name, by, sizes=own.get("sizes"))
        _draw(figures, rows, fits, ("split", "exponents"))
    following = f"saescale predict {asked.again} --flops {10 * float(rows['C'].max()):.3g}" if at and "C" in rows else None
    if as_sweep:
        from saescale.campaign.follow import write_follow_up

        d_in = round(rows.attrs["cost"].factor / 12)
        write_follow_up(as_sweep, example, flops, found.N["estimate"], d_in)
        store = f" --store {shlex.quote(str(asked.store))}" if asked.store != RUNS else ""
        page, following = f"{page}\n{as_sweep} written.", f"saescale plan {as_sweep.stem}{store}"
    elif flops is not None and not asked.is_table:
        following = f"saescale predict {asked.again} --flops {flops:g} --as-sweep sweeps/next.yaml"
    return _give(found.to_dict(), page, json, following)


def _reach(asked: Asked, frequency: float, others: dict[str, Any], draws: int, seed: int, json: Path | None) -> None:
    """Alive latents and tokens at which half of the concepts of a frequency have a latent."""
    from analysis.presence_reach import reach
    from saescale.study import Study

    if asked.is_table or any(value is not None for value in others.values()):
        raise ValueError(f"--frequency asks a sweep's concepts: give a sweep and --frequency, without {', '.join(others)}.")
    study = Study.of(asked.source, asked.overrides, asked.store)
    scored = study.concepts()
    if scored is None:
        raise ValueError(f"{study.folder.name} has no concepts. Run `saescale concepts {asked.again}` first.")
    found = reach(*scored, frequency, study.horizon(scored[0]), draws=draws, seed=seed)
    _give(found.to_dict(), found.summary(), json, f"saescale report {asked.again}")


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

    rows = sweep_points(Study.of(asked.source, asked.overrides, asked.store).table(), every_rate=every_rate)
    return (select(rows, needs=needs, where=asked.where, source=asked.source) if asked.where else rows), asked.cluster or CLUSTER


def _fit_convergence(asked: Asked, how: dict[str, Any], json: Path | None) -> None:
    """Loss and tokens at convergence against size, by the stop rule of analysis.convergence."""
    from analysis import fit as fit_law

    _may_write(json)
    rows, _ = points(asked, ["N", "D", "loss"])
    result = fit_law("convergence", rows, **how)
    page = f"{_heading(rows)}\n{result.summary()}\ntokens to convergence against size:\n{result.parts['tokens'].summary()}"
    _give(result.to_dict() | _read(rows), page, json, None)


def _fit_sweep(asked: Asked, json: Path | None) -> None:
    """Every law of a collected sweep, into its fits.json."""
    from saescale import screen
    from saescale.study import Study

    study = Study.of(asked.source, asked.overrides, asked.store)
    _may_write(json)
    fits = study.fit()
    if json:
        return _give(fits, f"{study.path('fits.json')} written.", json, None)
    return screen.show_laws(study.exponents(fits), f"saescale figures {asked.again}")


def _rates(asked: Asked) -> Any:
    """A fit of the best learning rate, where the sweep tried several at the same size and tokens."""
    from analysis import fit as fit_law

    rows, by = points(asked, ["N", "D", "lr", "loss"], every_rate=True) if asked.store else (None, None)
    if "lr" not in rows or rows.groupby(["N", "D"])["lr"].nunique().max() < 3:
        return None
    return fit_law("lr", rows, cluster=by, draws=500)


def _like(asked: Asked, as_sweep: Path | None, like: str | None, flops: float | None) -> Any:
    """The sweep whose settings a new one takes; asked for before anything is fitted."""
    if as_sweep is None:
        return None
    from saescale.campaign.sweep import load

    if flops is None:
        raise ValueError("--as-sweep tests a budget: give --flops too.")
    if as_sweep.exists():
        raise ValueError(f"{as_sweep} exists and is not overwritten: choose another name, or remove it first.")
    if asked.is_table and like is None:
        raise ValueError(f"{asked.source} does not say which model and data a sweep should use: name a sweep with --like.")
    return load(like, ()) if like else load(asked.source, asked.overrides)


def _numbers(text: str | None) -> dict[str, float] | None:
    """'N=7e9,D=1e12' -> {"N": 7e9, "D": 1e12}."""
    if text is None:
        return None
    from analysis.reading import parse_columns

    try:
        return {name: float(value) for name, value in parse_columns(text).items()}
    except ValueError:
        raise ValueError(f"--at {text!r} cannot be read: give NAME=NUMBER pairs, as in N=2048,D=1e6.") from None


def _draw(folder: Path, rows: Any, fits: dict[str, Any], names: Sequence[str]) -> None:
    from analysis import figures

    for name in names:
        drawn = figures.write(name, folder, rows, fits)
        print(f"{folder / drawn['svg']}, {drawn['png']}: {drawn['title']}")


def _heading(rows: Any) -> str:
    about = rows.attrs
    named = ", ".join(f"{name}={column}" for name, column in about["columns"].items())
    kept = f"; {about['dropped']} rows left out by {about['where']!r}" if about["where"] else ""
    return f"{about['source']}: {len(rows)} rows{kept}. {about['compute']}" + (f". {named}" if named else "")


def _read(rows: Any) -> dict[str, Any]:
    """How the table was read, beside a fit."""
    about = rows.attrs
    return {"table": {name: about[name] for name in ("source", "columns", "where", "dropped", "compute", "warnings")}}


def _may_write(json: Path | None) -> None:
    """Refused before any work: a file that is there is not overwritten."""
    if json is not None and str(json) != "-":
        if json.exists():
            raise ValueError(f"{json} exists and is not overwritten: choose another name, or remove it first.")
        if not json.parent.is_dir():
            raise ValueError(f"There is no folder {json.parent}: make it first.")


def _give(record: dict[str, Any], page: str, json: Path | None, following: str | None) -> None:
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
