"""What a person may say about dashboards: the settings of `conf/track/`."""

from __future__ import annotations

from dataclasses import dataclass

TRACKS = ("off", "offline", "wandb")


@dataclass(frozen=True)
class TrackConfig:
    """`kind`: wandb (a server), offline (wandb's files, in the store) or off. `project` and `entity` null: what WANDB_PROJECT and
    WANDB_ENTITY say, else "saescale" and the key's own."""

    kind: str
    project: str | None = None
    entity: str | None = None
