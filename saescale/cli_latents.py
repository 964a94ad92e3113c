"""The verbs that read what was trained, one latent at a time: latent, steer, splitting."""

from __future__ import annotations

from typing import Annotated

import typer

from saescale.door import RUNS, Json, StoreRoot, print_json

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The beginning or end of a run's id.")]
Latents = Annotated[list[str] | None, typer.Argument(metavar="[LATENT ...]", help="Numbers of latents, from 0.")]
Concepts = Annotated[list[str] | None, typer.Option("--concept", metavar="NAME", help="The concept's best latent in this run.")]
InSweep = Annotated[str | None, typer.Option("--sweep", help="The sweep to see the run in, where several have it.")]
TextOf = Annotated[str, typer.Option("--text", help="held_out, or train: the text latents are shown on.")]
Tokens = Annotated[int | None, typer.Option("--tokens", help="Of that text, so many tokens; default: what was evaluated on.")]


def latent(run: RunName, latents: Latents = None, concept: Concepts = None, store: StoreRoot = RUNS, json: Json = False,
           sweep: InSweep = None, text: TextOf = "held_out", tokens: Tokens = None) -> None:
    """Show what latents stand for: where each fires, how strongly, what it writes, and what it became in other dictionaries."""
    from analysis.cards import write_cards
    from saescale import screen, screen_latents
    from saescale.looking import Look, parse_latents
    from saescale.records.latents import card_path, read_cards
    from saescale.records.store import Store

    look = Look.at(Store(store.absolute()), run, sweep, text, tokens)
    wanted: dict = {i: None for i in parse_latents(latents or [])}
    for row in map(look.concept, concept or []):
        wanted[row["latent"]] = row
    if not wanted:
        raise ValueError("no latent was named: give numbers, as in `saescale latent RUN 12 345`, or --concept NAME.")
    with screen.progress(quiet=json) as bars:
        cards = look.cards(wanted, bars)
    page = write_cards(look.folder, read_cards(look.folder))
    if json:
        print_json(cards)
        return
    for card in cards:
        screen_latents.show_card(card, str(card_path(look.folder, look.run.run_id, card["latent"])))
    screen.say(f"open {page}", f"saescale steer {look.run.run_id} {cards[0]['latent']} --prompt TEXT")


def register(app: typer.Typer) -> None:
    for verb in (latent,):
        app.command()(verb)
