"""The verbs around a study of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")]) -> None:
    """Lay down a new study: conf/, sweeps/ and a README, with the installed settings behind them."""
    import shlex

    from saescale import screen
    from saescale.campaign.init import lay_down

    for path in lay_down(folder):
        print(folder / path)
    screen.say(f"A study in {folder}; its README says how to go on.", f"cd {shlex.quote(str(folder))} && saescale plan first")


def register(app: typer.Typer) -> None:
    app.command()(init)
