"""The verbs around a study of one's own: begin it, publish it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saescale.door import RUNS, Overrides, StoreRoot, SweepName


def init(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")]) -> None:
    """Lay down a new study: conf/, sweeps/ and a README, with the installed settings behind them."""
    import shlex

    from saescale import screen
    from saescale.campaign.init import lay_down

    for path in lay_down(folder):
        print(folder / path)
    screen.say(f"A study in {folder}; its README says how to go on.", f"cd {shlex.quote(str(folder))} && saescale plan first")


def publish(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS,
            to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Such as results/NAME.")] = Path("results"),
            command: Annotated[list[str] | None, typer.Option("--command", help="What was typed, if not the usual.")] = None
            ) -> None:
    """Put a sweep's tables, laws and figures where git can keep them, with the commands, machines and hours behind them."""
    import shlex

    from saescale import screen
    from saescale.published import publish as put
    from saescale.study import Study

    study = Study.of(sweep, overrides or [], store)
    folder = to / study.folder.name if to == Path("results") else to
    again = shlex.join([sweep, *(overrides or [])])  # without --store: where a store lay says nothing elsewhere
    typed = command or [f"saescale {verb} {again}" for verb in ("launch", "collect", "fit", "figures")]
    put(study, folder, typed)
    screen.say(f"{study.folder.name} published in {folder}; its figures come from its tables.", f"saescale figures {folder}")


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(publish)
