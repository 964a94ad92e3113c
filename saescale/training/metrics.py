"""metrics.jsonl: the run's own record of its training, one line per log point.

A row averages the block that ends at its step. A trunk logs whole blocks only, into its own folder; a branch takes over the
rows up to its fork, and the trunk's share of the block it forked in, and goes on in its run's folder: the rows of a run do not
depend on the runs it shares a trunk with. They hold only what training determines, so a row written before a kill and the same
row made again after it are equal, and the second is not written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saescale.flops import flops_dense
from saescale.records import record
from saescale.records.store import Store, append_line, read_lines, write_text
from saescale.training.checkpoint import TRUNK
from saescale.training.fleet import Member, Trunk, block_start, block_steps


class MetricsLog:
    def __init__(self, store: Store, trunk: Trunk) -> None:
        self.store, self.trunk = store, trunk
        self._written: dict[str, set[int]] = {}

    def path(self, name: str) -> Path:
        folder = self.store.trunk_dir(self.trunk.trunk_id) if name == TRUNK else self.store.run_dir(name)
        return folder / record.METRICS

    def row(self, name: str, member: Member, stats: dict[str, float], every_tokens: int) -> None:
        """Append this member's row when its block crossed a log point or ended its run, and the row is not there yet."""
        size = member.schedule.batch_tokens
        tokens, before = member.step * size, block_start(member.step, size) * size
        crossed = tokens // every_tokens != before // every_tokens
        wanted = crossed and member.step % block_steps(size) == 0 if member.is_trunk else crossed or member.step == member.end
        if wanted and member.step not in self._steps(name):
            append_line(self.path(name), self._row(member, tokens, stats))
            self._written[name].add(member.step)

    def _row(self, member: Member, tokens: int, stats: dict[str, float]) -> dict[str, Any]:
        s = self.trunk.science
        lr = member.schedule.trunk_lr if member.is_trunk else member.schedule.branch_lr
        return {"step": member.step, "tokens": tokens, "lr": lr(member.step - 1),
                "flops_dense": flops_dense(s["lm"]["d_in"], s["sae"]["n_latents"], tokens), **stats}

    def _steps(self, name: str) -> set[int]:
        """Steps already logged; the first look mends a torn tail and gives a new branch its trunk's rows."""
        if name not in self._written:
            path = self.path(name)
            rows = read_lines(path)
            if name != TRUNK and not rows:
                fork = self.trunk.runs[name].fork_step
                rows = [r for r in read_lines(self.path(TRUNK)) if r["step"] <= fork]
            if rows or path.exists():
                write_text(path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows))
            self._written[name] = {r["step"] for r in rows}
        return self._written[name]
