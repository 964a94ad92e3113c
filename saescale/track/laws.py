"""The laws on wandb's page: one run per sweep with the table, the exponents and the figures, beside the runs behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saescale.identity import digest
from saescale.records.store import read_json, write_json
from saescale.track.client import FINISH_S, Client, Unreachable


@dataclass(frozen=True)
class Laws:
    """What is shown. `table` and `exponents`: (column names, rows); `figures`: name -> PNG; `numbers`: for the run's summary."""

    sweep: str
    question: str
    plan_hash: str
    table: tuple[Sequence[str], Sequence[Sequence[Any]]]
    exponents: tuple[Sequence[str], Sequence[Sequence[Any]]]
    figures: Mapping[str, Path]
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def wandb_id(self) -> str:
        return f"{self.sweep[:40]}-laws-{digest(self.sweep)[:8]}"

    @property
    def hash(self) -> str:
        return digest([self.plan_hash, [[_plain(v) for v in row] for row in (*self.table[1], *self.exponents[1])],
                       sorted(self.figures)])[:16]


def push_laws(client: Client, laws: Laws, where: str) -> bool:
    """Log them as the sweep's summary run, again only when they changed. Gives whether anything was sent; raises Unreachable."""
    book = client.folder / "laws.json"
    now = {"where": where, "hash": laws.hash}
    if read_json(book) == now:
        return False
    wandb = client.wandb
    run = client.init(laws.wandb_id, True, name=f"{laws.sweep}: laws", group=laws.sweep, job_type="laws", tags=["laws"])
    run.config.update({"sweep": laws.sweep, "question": laws.question, "plan_hash": laws.plan_hash}, allow_val_change=True)
    shown: dict[str, Any] = {}
    for name, (columns, rows) in (("table", laws.table), ("exponents", laws.exponents)):
        if rows:
            shown[name] = wandb.Table(columns=list(columns), data=[[_plain(v) for v in row] for row in rows],
                                      allow_mixed_types=True)
    if laws.figures:
        shown["figures"] = [wandb.Image(str(path), caption=name) for name, path in laws.figures.items()]
    run.log(shown)
    run.summary.update(dict(laws.numbers))
    try:
        run.finish(exit_code=0)
    except Exception as e:
        raise Unreachable(f"not all of the laws was taken in {FINISH_S:.0f} s: push again") from e
    write_json(book, now)
    return True


def _plain(value: Any) -> Any:
    """A cell as JSON has it: numpy's numbers as Python's, what is not finite as missing."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
