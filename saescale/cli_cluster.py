"""The verbs around the work: plan, launch, status, and what a cluster needs beside them."""

from __future__ import annotations

from typing import Annotated

import typer

from saescale.door import RUNS, Json, Overrides, StoreRoot, SweepName, again, chosen, plan_of, print_json

OnlyText = Annotated[str | None, typer.Option("--only", metavar="EXPR", help="Only runs such as 'n_latents <= 8192'.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def plan(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
         explain: Annotated[str | None, typer.Option("--explain", metavar="RUN", help="Everything about one run.")] = None,
         diff: Annotated[bool, typer.Option("--diff", help="What differs from the last plan of this sweep.")] = False) -> None:
    """Show every run of a sweep before spending anything: tokens, FLOPs, time, disk, exclusions."""
    from saescale import screen, screen_cluster
    from saescale.campaign import explain as closely
    from saescale.campaign import status
    from saescale.campaign.plan import save
    from saescale.records.store import read_json

    planned, at = plan_of(sweep, overrides, store, save_it=False)
    at.require_writable()
    before = read_json(at.sweep_dir(planned.sweep.folder_name) / "plan.json")
    save(planned, at)
    found = status.states(planned.runs, at)
    if explain is not None:
        about = closely.explain(planned, closely.planned_run(planned, explain), found)
        print_json(about) if json else screen_cluster.show_rows(closely.rows(about))
    elif diff:
        differs = closely.diff(before, planned)
        print_json(differs) if json else screen_cluster.show_diff(differs)
    elif json:
        print_json(screen.plan_json(planned, found, at))
    else:
        screen.show_plan(planned, found, again(sweep, overrides, store), at)


def launch(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
           retry: Annotated[bool, typer.Option("--retry", help="Also train runs again that failed.")] = False,
           only: OnlyText = None,
           limit: Annotated[int | None, typer.Option("--limit", help="At most so many runs.")] = None,
           max_gpu_hours: Annotated[float | None, typer.Option("--max-gpu-hours", help="Refuse to pass it, spent ones counted.")]
           = None,
           test_only: Annotated[bool, typer.Option("--test-only", help="Ask the scheduler whether it would accept.")] = False,
           dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the jobs and write nothing.")] = False,
           yes: Yes = False) -> None:
    """Train what is missing. Safe to repeat: finished runs are never trained twice. On a cluster, hand over and return."""
    from saescale import screen, screen_cluster, screen_status
    from saescale.campaign import cluster
    from saescale.campaign.choice import LAUNCHED, Choice
    from saescale.campaign.launch import launch as start
    from saescale.campaign.only import Only

    planned, at = plan_of(sweep, overrides, store, save_it=not (dry_run or test_only))
    choice = Choice(Only(only) if only else None, limit, (*LAUNCHED, *(["failed"] if retry else [])), max_gpu_hours)
    typed, narrowed = again(sweep, overrides, store), chosen(only, limit, max_gpu_hours)
    if dry_run or test_only:
        shown = cluster.preview(planned, at, choice, ask=test_only)
        print_json(shown) if json else screen_cluster.show_preview(shown, typed + narrowed + " --retry" * retry)
        raise typer.Exit(0 if all(g["accepted"] is not False for g in shown["groups"]) else 3)
    if planned.cluster.kind == "slurm":
        screen_cluster.confirm_launch(planned, at, choice, yes or json)
        outcome = cluster.launch(planned, at, choice)
    else:
        with screen.progress(quiet=json) as bars:
            outcome = start(planned, at, bars, choice=choice)
        if outcome.exit_code == 0 and outcome.started and not json:
            screen_status.say_estimate(planned.runs, at)
    print_json(screen.outcome_json(outcome)) if json else screen.show_outcome(outcome, typed, narrowed)
    raise typer.Exit(outcome.exit_code)


def status(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
           watch: Annotated[bool, typer.Option("--watch", help="Show it again every few seconds, until all is done.")] = False,
           failed: Annotated[bool, typer.Option("--failed", help="Only runs that stopped or failed, with the reason.")] = False,
           ) -> None:
    """Say where every run stands. Exit code 0 all done, 3 some stopped or failed, 4 some running or not begun."""
    from saescale import screen, screen_status
    from saescale.campaign.plan import saved_runs
    from saescale.campaign.status import states
    from saescale.campaign.sweep import load
    from saescale.records.store import Store

    at = Store(store.absolute())
    asked = load(sweep, overrides or [])
    runs = saved_runs(asked, at) or plan_of(sweep, overrides, store, save_it=False)[0].runs
    view = screen_status.View(asked.folder_name, runs, again(sweep, overrides, store), failed)
    found = screen_status.watch(view, at) if watch else states(runs, at)
    print_json(screen.states_json(found)) if json else screen_status.show(view, found)
    kinds = {s.state for s in found.values()}
    raise typer.Exit(3 if kinds & {"failed", "stopped", "damaged"} else 4 if kinds - {"done"} else 0)


def probe(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False) -> None:
    """Measure how fast the sweep's sizes train where they will, with short jobs; later plans use it."""
    from saescale import screen
    from saescale.campaign import cluster, probe, status

    planned, at = plan_of(sweep, overrides, store)
    found = status.states(planned.runs, at)
    runs = [r for r in planned.runs if found[r.run_id].state != "done"] or planned.runs
    if planned.cluster.kind == "slurm":
        outcome = cluster.submit_probes(planned, at, probe.probe_jobs(planned, runs, at))
        problems, said = outcome.messages, f"{outcome.started} probe jobs submitted; plans use what they find."
    else:
        with screen.progress(quiet=json) as bars:
            problems = probe.probe_here(planned, runs, at, bars)
        said = f"{len(probe.measured(at))} shapes measured."
    for problem in problems:
        screen.say(problem, None)
    known = {f"{device}: {shape}": numbers for (device, shape), numbers in probe.measured(at).items()}
    print_json(known) if json else screen.say(said, f"saescale plan {again(sweep, overrides, store)}")
    raise typer.Exit(3 if problems else 0)


def conclude(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS) -> None:
    """Collect, fit, draw and report what is there: the job that ends a launch on a cluster."""
    from saescale import screen, screen_status
    from saescale.campaign.plan import saved_runs
    from saescale.campaign.sweep import load
    from saescale.records.store import Store
    from saescale.study import Study

    study = Study.of(sweep, overrides or [], store)
    table = study.collect()
    screen.say(f"{study.path('table.csv')}: {len(table)} rows, {int((table.state == 'done').sum())} with numbers.", None)
    if (table.state == "done").any():
        at = Store(store.absolute())
        screen_status.say_estimate(saved_runs(load(sweep, overrides or []), at) or (), at)
        study.fit()
        study.figures()
        screen.say(f"report: {study.report()}", None)


def register(app: typer.Typer) -> None:
    """Put the verbs on the door."""
    for verb in (plan, probe, launch, status):
        app.command()(verb)
    app.command(hidden=True)(conclude)
