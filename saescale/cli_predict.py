"""The door to what laws are for: predict, and verify once it has been trained."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from saescale.cli_laws import (
    Asked,
    Cluster,
    Columns,
    Compute,
    Draws,
    Figures,
    JsonOut,
    LawName,
    Seed,
    Source,
    Where,
    draw,
    give,
    heading,
    may_write,
    points,
)
from saescale.door import RUNS, Overrides, StoreRoot, SweepName

Like = Annotated[str | None, typer.Option("--like", metavar="SWEEP", help="For a table or a published study: the sweep whose "
                                                                           "settings it takes.")]

Rates = Annotated[str | None, typer.Option("--rates", metavar="'SWEEP [KEY=VALUE ...]'",
                                           help="The sweep whose learning rates say the best one.")]


def predict(source: Source, overrides: Overrides = None, store: StoreRoot = RUNS, law: LawName = None, columns: Columns = None,
            at: Annotated[str | None, typer.Option("--at", metavar="N=...,D=...", help="Where: every column of the law.")] = None,
            flops: Annotated[float | None, typer.Option("--flops", help="Or a budget to split between N and D.")] = None,
            frequency: Annotated[float | None, typer.Option("--frequency", help="Or a concept's: what it asks for.")] = None,
            latents: Annotated[str | None, typer.Option("--latents", metavar="N,...", help="Or what larger sizes hold.")] = None,
            as_sweep: Annotated[Path | None, typer.Option("--as-sweep", metavar="sweeps/NEXT.yaml",
                                                          help="Write the sweep that would test it.")] = None,
            like: Like = None, rates: Rates = None, where: Where = None,
            compute: Compute = None, cluster: Cluster = None, draws: Draws = 1000, seed: Seed = 0,
            json: JsonOut = None, figures: Figures = None) -> None:
    """Predict, with intervals, the loss at N and D, the best split of a budget, or which concepts have a latent."""
    from analysis.allocate import allocation
    from analysis.estimators import exponents
    from analysis.forecast import predict as foretell
    from analysis.laws import find

    asked = Asked(source, tuple(overrides or ()), store, columns, where, compute, cluster)
    may_write(json)
    presence = {"--frequency": frequency, "--latents": latents}
    if any(value is not None for value in presence.values()):
        others = {"--at": at, "--flops": flops, "--as-sweep": as_sweep, "--law": law}
        return give(*_presence(asked, presence, others, draws, seed), json, _shown(asked))
    example = _like(asked, as_sweep, like, flops)
    chosen = find(law or ("nd" if asked.is_table else "nd_interaction"))
    rows, by = points(asked, [*chosen.columns, chosen.y])
    split = lr = None
    if flops is not None and flops > 0:
        own = {} if asked.is_table else {"scale": "ln_loss", "sizes": 5}
        from analysis import isoflop as find_valleys

        valleys = find_valleys(rows, cluster=by, draws=draws, seed=seed, **own)
        split = allocation(rows, law=chosen, valleys=valleys, cluster=by, flops=flops, draws=draws, seed=seed)
        lr = _rates(_rates_of(asked, rates))
    found = foretell(rows, at=_numbers(at), flops=flops, law=chosen, split=split, lr=lr, cluster=by, draws=draws, seed=seed)
    page = f"{heading(rows)}\n{found.summary()}" + (f"\n{split.summary()}" if split else "")
    if figures and split:
        fits = {"isoflop": valleys.to_dict(), "allocation": split.to_dict()}
        fits["exponents"] = exponents(rows, chosen.name, by, sizes=own.get("sizes"))
        draw(figures, rows, fits, ("split", "exponents"))
    following = f"saescale predict {asked.again} --flops {10 * float(rows['C'].max()):.3g}" if at and "C" in rows else None
    if as_sweep:
        _write_sweep(as_sweep, example, flops, found.N["estimate"], rows)
        store = f" --store {shlex.quote(str(asked.store))}" if asked.store != RUNS else ""
        page, following = f"{page}\n{as_sweep} written.", f"saescale plan {as_sweep.stem}{store}"
    elif flops is not None and not asked.is_table:
        following = f"saescale predict {asked.again} --flops {flops:g} --as-sweep sweeps/next.yaml{_like_itself(asked)}"
    ahead = {} if asked.is_table or flops is None else _ahead(asked, rates, found.fit, lr, flops)
    return give(found.to_dict() | ahead, page, json, following)


def verify(prediction: Annotated[Path, typer.Argument(metavar="PREDICTION.json", help="What predict wrote with --flops or "
                                                     "--latents, and --json.")],
           sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, rates: Rates = None,
           json: JsonOut = None) -> None:
    """Hold a prediction against what was trained since: errors, and whether the intervals held."""
    from analysis.verdict import verdict, verdict_lines
    from saescale import screen
    from saescale.records.store import read_json, write_json

    said = read_json(prediction)
    if not isinstance(said, dict) or not {"at", "draws"} & said.keys():
        raise ValueError(f"{prediction} is no prediction: make one with `saescale predict SWEEP --flops C --json FILE`, or of "
                         "concepts with --latents N in place of --flops C.")
    may_write(json)
    asked = Asked(sweep, tuple(overrides or ()), store)
    if "draws" in said:  # of presence
        from saescale.study import Study

        came_out = Study.of(sweep, asked.overrides, store).presence_verdict(said)
        return give(*came_out, json, _shown(asked))
    rows, by = points(asked, ["N", "D", "loss"])
    others = points(_rates_of(asked, rates), ["N", "D", "lr", "loss"], every_rate=True)[0] if said.get("rates") else None
    found = verdict(said, rows, by, others)
    screen.show_verdict(verdict_lines(found))
    if json:
        write_json(json, found)
    screen.say(f"{json} written." if json else "", _shown(asked))
    return None


def _shown(asked: Asked) -> str:
    """The command that shows what was asked: a published study has figures and no report."""
    return f"saescale {'figures' if asked.is_published else 'report'} {asked.again}"


def _like_itself(asked: Asked) -> str:
    """The option that names the sweep a published study is of, which its folder does not."""
    from saescale.records.store import read_json

    return f" --like {read_json(Path(asked.source) / 'study.json')['sweep']}" if asked.is_published else ""


def _ahead(asked: Asked, rates: str | None, fit: Any, lr: Any, flops: float) -> dict[str, Any]:
    """What the planned runs of this budget that wait to be trained should give: the losses, and the best learning rates."""
    from analysis.forecast import learning_rate
    from analysis.verdict import foretold, planned_cells
    from saescale.study import Study

    cells = planned_cells(Study.of(asked.source, asked.overrides, asked.store).table(), flops)
    by_rate = _rates_of(asked, rates)
    table = Study.of(by_rate.source, by_rate.overrides, by_rate.store).table()
    tried = planned_cells(table, flops) if lr else []
    return {"cells": foretold(fit, cells),
            "rates": [{"N": n, "D": d, "lr": learning_rate(lr, {"N": n, "D": d})} for n, d in tried]}


def _rates_of(asked: Asked, rates: str | None) -> Asked:
    """The sweep whose learning rates are asked: the same one, unless `rates` names another."""
    if rates is None:
        return asked
    sweep, *overrides = shlex.split(rates)
    return Asked(sweep, tuple(overrides), asked.store)


def _presence(asked: Asked, wanted: dict[str, Any], others: dict[str, Any], draws: int, seed: int) -> tuple[dict, str]:
    """(record, page) of the law of presence: one of `wanted` is given, and none of `others`, which belong to laws of the loss."""
    from saescale.study import Study

    given, clash = ([name for name, value in options.items() if value is not None] for options in (wanted, others))
    if asked.is_table or clash or len(given) > 1:
        raise ValueError(f"{' and '.join([*given, *clash])}: {given[0]} asks a sweep's concepts. Give a sweep and one of "
                         f"{', '.join(wanted)}, without {', '.join(others)}.")
    return Study.of(asked.source, asked.overrides, asked.store).presence_law(given[0], wanted[given[0]], draws, seed)


def _rates(asked: Asked) -> Any:
    """A fit of the best learning rate, where a sweep tried several at the same size and tokens; None of a table."""
    from analysis import fit as fit_law

    if asked.is_table:
        return None
    rows, by = points(asked, ["N", "D", "lr", "loss"], every_rate=True)
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
    if (asked.is_table or asked.is_published) and like is None:
        raise ValueError(f"{asked.source} does not say which model and data a sweep should use: name a sweep with --like.")
    return load(like, ()) if like else load(asked.source, asked.overrides)


def _write_sweep(path: Path, example: Any, flops: float, n_latents: float, rows: Any) -> None:
    from saescale.campaign.follow import write_follow_up

    write_follow_up(path, example, flops, n_latents, round(rows.attrs["cost"].factor / 12))


def _numbers(text: str | None) -> dict[str, float] | None:
    """'N=7e9,D=1e12' -> {"N": 7e9, "D": 1e12}."""
    if text is None:
        return None
    from analysis.reading import parse_columns

    try:
        return {name: float(value) for name, value in parse_columns(text).items()}
    except ValueError:
        raise ValueError(f"--at {text!r} cannot be read: give NAME=NUMBER pairs, as in N=2048,D=1e6.") from None


