"""Where a sweep keeps what was read of single latents: cards, steering, splitting. Plain JSON, each file written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saescale.records.store import Damaged, read_json

CARD_SCHEMA = 1
STEERING, SPLITTING, PROBING = "steering.json", "splitting.json", "probing.json"  # of a whole sweep, for its figures


def card_path(sweep_dir: Path, run_id: str, latent: int) -> Path:
    return sweep_dir / "latents" / run_id / f"{latent}.json"


def steered_path(sweep_dir: Path, run_id: str, latent: int) -> Path:
    """What `saescale steer RUN LATENT` found."""
    return sweep_dir / "steering" / run_id / f"{latent}.json"


def read_card(sweep_dir: Path, run_id: str, latent: int) -> dict[str, Any] | None:
    """The card of one latent; None when there is none, or one of another schema, which is then made again."""
    card = read_json(card_path(sweep_dir, run_id, latent))
    return card if isinstance(card, dict) and card.get("schema") == CARD_SCHEMA else None


def read_cards(sweep_dir: Path) -> list[dict[str, Any]]:
    """All cards of a sweep: those of a concept first, by its name, then by size of dictionary, run and latent."""
    found = []
    for path in (sweep_dir / "latents").glob("*/*.json"):
        card = read_json(path)
        if not isinstance(card, dict):
            raise Damaged(f"{path} is damaged: it is no card of a latent. Move it away and run `saescale latent` again.")
        if card.get("schema") == CARD_SCHEMA:
            found.append(card)
    return sorted(found, key=lambda c: (c["concept"] is None, (c["concept"] or {}).get("concept", ""), c["n_latents"],
                                        c["run_id"], c["latent"]))
