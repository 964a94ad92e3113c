"""The verbs that read what was trained by its latents: latent, steer, splitting, probing."""

from __future__ import annotations

from typing import Annotated

import typer

from saescale.door import RUNS, Json, Overrides, StoreRoot, SweepName, again, print_json

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The beginning or end of a run's id.")]
Latents = Annotated[list[str] | None, typer.Argument(metavar="LATENT", help="Numbers of latents, from 0.")]
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
    from saescale.records.latents import card_path
    from saescale.records.store import Store

    look = Look.at(Store(store.absolute()), run, sweep, text, tokens)
    wanted: dict = {i: None for i in parse_latents(latents or [])}
    for row in map(look.concept, concept or []):
        wanted[row["latent"]] = row
    if not wanted:
        raise ValueError("no latent was named: give numbers, as in `saescale latent RUN 12 345`, or --concept NAME.")
    with screen.progress(quiet=json) as bars:
        cards = look.cards(wanted, bars)
    page = write_cards(look.folder)
    if json:
        print_json(cards)
        return
    for card in cards:
        screen_latents.show_card(card, str(card_path(look.folder, look.run.run_id, card["latent"])))
    named = again(look.run.run_id, [str(cards[0]["latent"])], store)
    screen.say(f"open {page}", f"saescale steer {named} --prompt TEXT")


def steer(
    name: Annotated[str, typer.Argument(metavar="RUN|SWEEP", help="Beginning or end of a run's id; a sweep with --concepts.")],
    latent: Annotated[list[str] | None, typer.Argument(metavar="LATENT|KEY=VALUE", help="One latent of the run; "
                                                       "overrides of the sweep.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="What the model goes on from.")] = None,
    scale: Annotated[str | None, typer.Option("--scale", metavar="LOW..HIGH", help="Multiples of the latent's maximum: -10..10, "
                                              "-10..10/5 (in steps of 5) or -5,0,5.")] = None,
    concept: Annotated[str | None, typer.Option("--concept", metavar="NAME", help="Its best latent, and what becomes of its "
                                                "log-probability.")] = None,
    concepts: Annotated[int | None, typer.Option("--concepts", metavar="N", help="Of a sweep: N concepts in every size.")] = None,
    tokens_out: Annotated[int, typer.Option("--tokens-out", help="Tokens to write.")] = 32,
    temperature: Annotated[float, typer.Option("--temperature", help="0: the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawing, where temperature is above 0.")] = 0,
    store: StoreRoot = RUNS, json: Json = False, sweep: InSweep = None,
) -> None:
    """Clamp a latent to multiples of its maximum and see what the model writes; or measure that over a sweep's sizes."""
    from saescale import screen, screen_latents
    from saescale.measure.steer import parse_scales

    scales = parse_scales(scale) if scale is not None else None
    if concepts is not None:
        from saescale import across
        from saescale.study import Study

        study = Study.of(name, latent or [], store)
        with screen.progress(quiet=json) as bars:
            found = across.steer_concepts(study.folder, study.plan, study.store, {"n_concepts": concepts, "scales": scales}, bars)
        print_json(found) if json else screen_latents.show_steering(found, f"saescale figures {again(name, latent, store)}")
        return
    from saescale.looking import Look, parse_latents
    from saescale.records.store import Store

    look = Look.at(Store(store.absolute()), name, sweep)
    row = None if concept is None else look.concept(concept)
    wanted = parse_latents(latent or []) or ([row["latent"]] if row else [])
    if len(wanted) != 1:
        raise ValueError(f"{len(wanted)} latents were named: give one, as in `saescale steer RUN 12 --prompt TEXT`, or "
                         "--concept NAME.")
    how = {"n_new": tokens_out, "temperature": temperature, "seed": seed}
    with screen.progress(quiet=json) as bars:
        found = look.steer(wanted[0], row, scales, prompt, how, bars)
    following = f"saescale latent {again(look.run.run_id, [str(wanted[0])], store)}"
    print_json(found) if json else screen_latents.show_steered(found, following)


def splitting(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
              tokens: Tokens = None) -> None:
    """Compare the sizes of a sweep: how latents split, and which of a larger dictionary's latents are new."""
    from saescale import across, screen, screen_latents
    from saescale.study import Study

    study = Study.of(sweep, overrides or [], store)
    with screen.progress(quiet=json) as bars:
        found = across.split(study.folder, study.plan, study.store, tokens, bars)
    print_json(found) if json else screen_latents.show_splitting(found, f"saescale figures {again(sweep, overrides, store)}")


def probing(sweep: SweepName, overrides: Overrides = None, store: StoreRoot = RUNS, json: Json = False,
            inventory: Annotated[list[str] | None, typer.Option("--inventory", metavar="NAME", help="A list of conf/concepts/; "
                                 "default: the sweep's, or words.")] = None,
            k: Annotated[str, typer.Option("--k", metavar="N,N,...", help="Latents a probe may read.")] = "1,2,5",
            concepts: Annotated[int, typer.Option("--concepts", metavar="N", help="At most so many names.")] = 40,
            tokens: Annotated[int, typer.Option("--tokens", help="Of the training text.")] = 400_000) -> None:
    """Tell concepts by k latents: a logistic regression on them, beside raw activations and untrained dictionaries."""
    from saescale import across, screen, screen_latents
    from saescale.study import Study

    if not all(part.isdecimal() for part in k.split(",")):
        raise ValueError(f"--k {k} is no list of numbers: give 1,2,5 for instance.")
    study = Study.of(sweep, overrides or [], store)
    options = {"inventories": inventory, "ks": [int(part) for part in k.split(",")], "n_concepts": concepts, "n_tokens": tokens}
    with screen.progress(quiet=json) as bars:
        found = across.probe(study.folder, study.plan, study.store, options, bars)
    print_json(found) if json else screen_latents.show_probing(found, f"saescale figures {again(sweep, overrides, store)}")


def register(app: typer.Typer) -> None:
    for verb in (latent, steer, splitting, probing):
        app.command()(verb)
