"""The door: one short function per verb, each importing only what it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from saescale import laws
from saescale.laws import RUNS, Overrides, StoreRoot

app = typer.Typer(name="saescale", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  help="Scaling laws for sparse autoencoders: plan a sweep, launch it, fit its laws.")

SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="Name of a file in sweeps/.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.command()
def plan(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False) -> None:
    """Show every run of a sweep before spending anything: tokens, FLOPs, time, disk, exclusions."""
    from saescale import screen
    from saescale.campaign import status

    planned, at = _plan(sweep, overrides, store)
    found = status.states(planned.runs, at)
    _print_json(screen.plan_json(planned, found)) if json else screen.show_plan(planned, found, _again(sweep, overrides, store))


@app.command()
def launch(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
           retry: Annotated[bool, typer.Option("--retry", help="Also train runs again that failed.")] = False) -> None:
    """Train what is missing. Safe to repeat: finished runs are never trained twice."""
    from saescale import screen
    from saescale.campaign.launch import launch as start

    planned, at = _plan(sweep, overrides, store)
    with screen.progress(quiet=json) as bars:
        outcome = start(planned, at, bars, retry)
    _print_json(screen.outcome_json(outcome)) if json else screen.show_outcome(outcome, _again(sweep, overrides, store))
    raise typer.Exit(outcome.exit_code)


@app.command()
def status(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False) -> None:
    """Say where every run stands. Exit code 0 all done, 3 some stopped or failed, 4 some running or not begun."""
    from saescale import screen
    from saescale.campaign.status import states

    planned, at = _plan(sweep, overrides, store, save_it=False)
    found = states(planned.runs, at)
    _print_json(screen.states_json(found)) if json else screen.show_states(planned, found, _again(sweep, overrides, store))
    kinds = {s.state for s in found.values()}
    raise typer.Exit(3 if kinds & {"failed", "stopped", "damaged"} else 4 if kinds & {"running", "new"} else 0)


@app.command()
def run(job: Annotated[Path, typer.Argument(help="A job's directory, runs/jobs/<id>.")]) -> None:
    """Do one job in this process: what the workers run, and the way to debug one."""
    from saescale.training.train import run_job

    if not (job / "job.json").is_file():
        raise ValueError(f"{job} is not a job: it has no job.json. Give a directory of runs/jobs/.")
    raise typer.Exit(run_job(job))


@app.command()
def collect(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False) -> None:
    """Write table.csv: one row for every planned run, with a reason where there is no number."""
    from saescale import screen
    from saescale.study import Study

    study = Study.of(sweep, overrides or [], store)
    table = study.collect()
    _print_json(table.to_dict("records")) if json else screen.say(
        f"{study.path('table.csv')}: {len(table)} rows, {int((table.state == 'done').sum())} with numbers.",
        f"saescale fit {_again(sweep, overrides, store)}")


app.command()(laws.fit)
app.command()(laws.isoflop)
app.command()(laws.predict)


@app.command()
def concepts(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """Score which concepts have a latent, for the dictionaries the sweep names, trained and untrained."""
    from saescale import screen
    from saescale.campaign.concepts import score

    planned, at = _plan(sweep, overrides, store)
    with screen.progress() as bars:
        path = score(planned, at, bars)
    screen.say(f"{path} written.", f"saescale figures {_again(sweep, overrides, store)}")


@app.command()
def figures(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """Draw every figure as SVG and PNG."""
    from saescale import screen
    from saescale.study import Study

    study = Study.of(sweep, overrides or [], store)
    drawn = study.figures()
    screen.say(f"{len(drawn)} figures in {study.path('report/figures')}.", f"saescale report {_again(sweep, overrides, store)}")


@app.command()
def report(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """Write the report: one static page with the laws, the figures, and what is missing."""
    from saescale import screen
    from saescale.study import Study

    screen.say(f"open {Study.of(sweep, overrides or [], store).report()}", None)


@app.command()
def demo(overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """The whole way on the bundled model: plan, launch, concepts, collect, fit, figures, report."""
    from saescale import screen
    from saescale.campaign import concepts
    from saescale.campaign.launch import launch as start
    from saescale.campaign.status import states
    from saescale.study import Study

    planned, at = _plan("demo", overrides, store)
    screen.show_plan(planned, states(planned.runs, at), None)
    with screen.progress() as bars:
        outcome = start(planned, at, bars)
        if outcome.exit_code == 0 and planned.sweep.concepts:
            concepts.score(planned, at, bars)
    if outcome.exit_code:
        screen.show_outcome(outcome, _again("demo", overrides, store))
        raise typer.Exit(outcome.exit_code)
    study = Study.of("demo", overrides or [], store)
    study.collect()
    fits = study.fit()
    study.figures()
    page = study.report()
    screen.show_laws(study.exponents(fits), None)
    screen.say(f"report: {page}", f"saescale plan {_again('demo', ['sae=relu_l1'], store)}")


def _plan(sweep: str, overrides: list[str] | None, root: Path, save_it: bool = True) -> tuple[Any, Any]:
    from saescale.campaign.plan import make_plan, save
    from saescale.campaign.sweep import load
    from saescale.records.store import Store

    store = Store(root.absolute())
    if save_it:
        store.require_writable()
    planned = make_plan(load(sweep, overrides or []), store)
    if save_it:
        save(planned, store)
    return planned, store


def _again(sweep: str, overrides: list[str] | None, store: Path) -> str:
    """The sweep, its overrides and its store as the user may type them again."""
    import shlex

    return shlex.join([sweep, *(overrides or []), *(["--store", str(store)] if store != RUNS else [])])


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=1, default=str))


def main() -> None:
    """Errors of the user are one sentence and exit code 2; work that was begun and stopped, exit code 3."""
    try:
        app()
    except (ValueError, OSError) as e:
        text = f"{e.filename}: {e.strerror}" if isinstance(e, OSError) and e.strerror else str(e)
        print(f"saescale: {text}", file=sys.stderr)
        sys.exit(2)
    except Exception as e:
        from saescale.campaign.local import Stopped

        if not isinstance(e, Stopped):
            raise
        print(f"saescale: {e}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
