"""Before anything is harvested: the weights of models on the hub, and corpora that a plan left to the launch, tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saescale.activations import overlap, tokens
from saescale.activations.corpora import open_corpus
from saescale.activations.folder import LMFolder
from saescale.activations.hub import HubFolder, fetch_weights
from saescale.campaign.fleets import grouped
from saescale.campaign.local import Progress
from saescale.campaign.plan import PlannedRun
from saescale.records.store import Store


def make_ready(runs: Sequence[PlannedRun], store: Store, progress: Progress | None = None) -> list[str]:
    """Fetch and tokenise what these runs read. Returns what a person should know. Raises ValueError when a corpus holds less
    than its runs were planned on."""
    said = []
    with_lm = [r for r in runs if r.execution.get("lm_path")]
    for run in {r.execution["lm_path"]: r for r in with_lm}.values():
        if hub := run.execution.get("lm_hub"):
            fetch_weights(hub["name"], hub["commit"])
    for group in grouped(with_lm, lambda r: r.execution["corpus_key"]).values():
        said += tokenised(group, store, progress)
    return said


def tokenised(group: Sequence[PlannedRun], store: Store, progress: Progress | None) -> list[str]:
    run = group[0]
    data, execution = run.science["data"], run.execution
    if not tokens.is_prepared(store, data):
        hub = execution.get("lm_hub")
        lm = HubFolder(Path(execution["lm_path"]), hub["name"]) if hub else LMFolder(Path(execution["lm_path"]))

        def show(done: float, total: float, note: str) -> None:
            if progress is not None:
                progress.stage("tokenise", done, total, note)

        tokens.prepare(store, open_corpus(execution["documents"], lm), lm, data, show)
    corpus = tokens.read(store.corpus_dir(execution["corpus_key"]), verify=False)
    plain = [r.science["train"]["n_tokens"] for r in group if not r.science["data"].get("oversample")]  # the plan counted mixes
    longest, there = max(plain, default=0), corpus.train.n_tokens
    if longest > there:
        where = (execution.get("documents") or {}).get("path") or ""
        raise ValueError(f"the corpus {data['corpus']} {where} gives {there / 1e6:.2f}M training tokens, fewer than the "
                         f"{longest / 1e6:.2f}M of the longest run. Plan again: runs that need more are then excluded; or give "
                         "more text. Nothing was started.")
    warning = overlap.warning(corpus.meta.get("overlap"))
    return [warning] if warning else []
