"""The door: one short function per verb, each importing only what it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from saescale import cli_cluster, cli_exchange, cli_harvest, cli_latents, cli_laws, cli_predict, cli_study, cli_track, cli_triage
from saescale.door import RUNS, Json, Overrides, StoreRoot, SweepName
from saescale.door import again as _again
from saescale.door import plan_of as _plan
from saescale.door import print_json as _print_json

app = typer.Typer(name="saescale", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  help="Scaling laws for sparse autoencoders: plan a sweep, launch it, fit its laws.")

for verbs in (cli_cluster, cli_harvest, cli_triage, cli_latents, cli_exchange, cli_track, cli_study):
    verbs.register(app)


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
    from saescale import screen, screen_status
    from saescale.campaign.plan import saved_runs
    from saescale.campaign.sweep import load
    from saescale.records.store import Store
    from saescale.study import Study

    study = Study.of(sweep, overrides or [], store)
    table = study.collect()
    if not json and (table.state == "done").all():
        at = Store(store.absolute())
        screen_status.say_estimate(saved_runs(load(sweep, overrides or []), at) or (), at)
    _print_json(table.to_dict("records")) if json else screen.say(
        f"{study.path('table.csv')}: {len(table)} rows, {int((table.state == 'done').sum())} with numbers.",
        f"saescale {'fit' if (table.state == 'done').any() else 'status'} {_again(sweep, overrides, store)}")


app.command()(cli_laws.fit)
app.command()(cli_laws.isoflop)
app.command()(cli_predict.predict)
app.command()(cli_predict.verify)


@app.command()
def concepts(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """Score which concepts have a latent, for the dictionaries the sweep names and their controls, and fit how that moves."""
    from saescale import looking, screen, screen_concepts
    from saescale.campaign.concepts import score
    from saescale.records.concepts import read
    from saescale.sources import is_synthetic
    from saescale.study import Study

    planned, at = _plan(sweep, overrides, store)
    if planned.cluster.kind == "slurm":
        screen.say(f"Up to {planned.cluster.workers} processes score on this machine, not on Slurm: where that is a login node, "
                   "stop them and start it with srun (docs/cluster.md).", None)
    with screen.progress() as bars:
        path = score(planned, at, bars)
        if not is_synthetic(planned.runs[0].science):  # features have no text to show a latent on
            looking.show_best(at, planned.sweep.folder_name, bars)
    screen_concepts.show(read(path.parent))
    study = Study.of(sweep, overrides or [], store)
    study.collect()
    screen.show_laws([row for row in study.exponents(study.fit()) if row[0].startswith("concept")], None)
    screen.say(f"{path} written.", f"saescale figures {_again(sweep, overrides, store)}")


@app.command()
def figures(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """Draw every figure as SVG and PNG."""
    from saescale import screen
    from saescale.study import Study

    study = Study.of(sweep, overrides or [], store)
    drawn = study.figures()
    screen.say(f"{len(drawn)} figures in {study.figures_folder}.",
               None if study.is_published else f"saescale report {_again(sweep, overrides, store)}")


@app.command()
def report(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """Write the report: one static page with the laws, the figures, and what is missing."""
    from saescale import screen
    from saescale.study import Study

    screen.say(f"open {Study.of(sweep, overrides or [], store).report()}", None)


@app.command()
def demo(overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """The whole way on the bundled model: plan, launch, concepts, collect, fit, figures, report."""
    from saescale import across, looking, screen
    from saescale.campaign import concepts
    from saescale.campaign.launch import launch as start
    from saescale.campaign.status import states
    from saescale.study import Study

    planned, at = _plan("demo", overrides, store)
    screen.show_plan(planned, states(planned.runs, at), None, at)
    with screen.progress() as bars:
        outcome = start(planned, at, bars)
        if outcome.exit_code == 0 and planned.sweep.concepts:
            concepts.score(planned, at, bars)
            looking.show_best(at, planned.sweep.folder_name, bars)
            across.show_splitting(planned, at, bars)
    if outcome.exit_code:
        screen.show_outcome(outcome, _again("demo", overrides, store))
        raise typer.Exit(outcome.exit_code)
    for note in outcome.notes:
        screen.say(note, None)
    study = Study.of("demo", overrides or [], store)
    study.collect()
    fits = study.fit()
    study.figures()
    page = study.report()
    screen.show_laws(study.exponents(fits), None)
    screen.say(f"report: {page}", f"saescale plan {_again('demo', ['sae=relu_l1'], store)}")


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
