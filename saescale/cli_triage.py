"""The verbs for when something went wrong, or had better not: why, logs, retry, cancel, gc, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saescale.cli_cluster import OnlyText, Yes
from saescale.door import RUNS, Json, Overrides, StoreRoot, SweepName, again, plan_of, print_json

RunOrSweep = Annotated[str, typer.Argument(metavar="RUN|SWEEP", help="A sweep, or the beginning or end of a run's id.")]


def why(name: RunOrSweep, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False) -> None:
    """Say why runs are where they are: the class, the lines that show it, one command to go on with."""
    from saescale import screen_cluster
    from saescale.campaign import folders, submissions, triage
    from saescale.campaign.recorded import find
    from saescale.campaign.status import states
    from saescale.records.store import Store

    at = Store(store.absolute())
    if Path(f"{name}.yaml") in folders.files("sweeps"):
        planned, at = plan_of(name, overrides, store, save_it=False)
        runs, typed = planned.runs, again(name, overrides, store)
    else:
        runs, typed = (find(at, name),), "SWEEP"
    found = states(runs, at)
    known = triage.causes(found, at, submissions.read(at))
    if json:
        print_json({run: {"class": c.kind, "evidence": c.evidence, "attempts": c.n_attempts, "command": c.command(typed, run)}
                    for run, c in known.items()})
    else:
        screen_cluster.show_causes(known, typed)


def logs(run: Annotated[str, typer.Argument(metavar="RUN", help="The beginning or end of a run's id.")], store: StoreRoot = RUNS,
         attempt: Annotated[int | None, typer.Option("--attempt", help="Only this attempt, counted from 0.")] = None,
         follow: Annotated[bool, typer.Option("--follow", help="Go on printing what is written.")] = False) -> None:
    """Print what the attempts of a run's job wrote."""
    from saescale import screen_cluster
    from saescale.campaign import submissions, triage
    from saescale.campaign.recorded import find, log_files
    from saescale.campaign.status import states
    from saescale.records.store import Store

    at = Store(store.absolute())
    planned = find(at, run)
    case = triage.cases(states((planned,), at), at, submissions.read(at))[planned.run_id]
    if case.job is None:
        raise ValueError(f"{planned.run_id} was never part of a job.")
    screen_cluster.show_logs(log_files(case.job, attempt), follow)


def retry(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
          classes: Annotated[str | None, typer.Option("--class", metavar="CLASS,...", help="Only runs that ended so.")] = None,
          set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An execution setting for this try; "
                                                         "*2 and /2 scale what it is.")] = None,
          only: OnlyText = None,
          max_attempts: Annotated[int, typer.Option("--max-attempts", help="Leave jobs alone that were tried so often.")] = 10,
          max_gpu_hours: Annotated[float | None, typer.Option("--max-gpu-hours", help="As for launch.")] = None) -> None:
    """Launch again what ended before it was done. Without --class: what was no fault of the run. Runs keep their ids."""
    from saescale import screen
    from saescale.campaign import again as tries
    from saescale.campaign import cluster
    from saescale.campaign.launch import launch as start

    planned, at = plan_of(sweep, tries.with_settings(sweep, overrides or [], set_ or []), store)
    choice, notes = tries.choose(planned, at, tries.parse_classes(classes), only, max_attempts, max_gpu_hours)
    if planned.cluster.kind == "slurm":
        outcome = cluster.launch(planned, at, choice)
    else:
        with screen.progress(quiet=json) as bars:
            outcome = start(planned, at, bars, choice=choice)
    outcome = tries.noted(outcome, notes)
    print_json(screen.outcome_json(outcome)) if json else screen.show_outcome(outcome, again(sweep, overrides, store))
    raise typer.Exit(outcome.exit_code)


def cancel(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False, only: OnlyText = None,
           orphans: Annotated[bool, typer.Option("--orphans", help="Only runs that left the sweep.")] = False,
           yes: Yes = False) -> None:
    """End jobs of a sweep that are queued or running. What they have saved stays, and launch goes on from it."""
    from saescale import screen, screen_cluster
    from saescale.campaign import again as tries
    from saescale.campaign import queue

    planned, at = plan_of(sweep, overrides, store, save_it=False)
    jobs = tries.to_cancel(planned, at, only, orphans)
    listed: dict[str, Any] = {j.element: {"job": j.job, "state": j.state, "runs": j.runs} for j in jobs}
    if jobs and not json:
        screen_cluster.show_to_cancel(jobs)
    if jobs and not yes:
        screen_cluster.confirm(f"cancel {len(jobs)} jobs with {sum(len(j.runs) for j in jobs)} runs?", "Nothing was cancelled.")
    problem = queue.cancel(list(listed))
    if problem:
        raise ValueError(f"{problem}. Ask `saescale status {sweep}` what is left.")
    following = f"saescale status {again(sweep, overrides, store)}"
    print_json(listed) if json else screen.say(f"{len(jobs)} jobs cancelled.", following)


def gc(store: StoreRoot = RUNS, json: Json = False, yes: Yes = False) -> None:
    """List what can go (checkpoints of finished trunks, caches nobody reads, old snapshots of code), and remove it when told."""
    from saescale import screen, screen_cluster
    from saescale.campaign import queue, submissions, tidy
    from saescale.records.store import Store

    at = Store(store.absolute())
    now = queue.queue() if submissions.read(at) else queue.Queue({})
    found = tidy.leavings(at, now)
    if json and not yes:
        print_json([vars(f) for f in found])
        return
    if found and not json:
        screen_cluster.show_leavings(found)
    if found and not yes:
        screen_cluster.confirm("remove all of this?", "Nothing was removed.")
    tidy.remove(found)
    print_json([vars(f) for f in found]) if json else screen.say(
        f"{len(found)} things removed, {sum(f.n_bytes for f in found) / 1e9:.2f} GB.", None)


def doctor(store: StoreRoot = RUNS, json: Json = False,
           cluster: Annotated[str, typer.Option("--cluster", metavar="NAME", help="Of conf/cluster/: local, slurm, your site.")]
           = "local",
           partition: Annotated[str | None, typer.Option("--partition", help="Where to try a job of a second.")] = None) -> None:
    """Look whether everything is there that a launch needs. Exit code 3 when something will not work."""
    from saescale import screen_cluster
    from saescale.campaign import doctor as look
    from saescale.records.store import Store

    checks = [*look.examine(Store(store.absolute()), cluster, partition)]
    print_json([vars(c) for c in checks]) if json else screen_cluster.show_checks(checks)
    raise typer.Exit(3 if look.worst(checks) == look.FAIL else 0)


def register(app: typer.Typer) -> None:
    for verb in (why, logs, retry, cancel, gc, doctor):
        app.command()(verb)
