"""A harvest job: the shards it was given, of every hook it serves, one forward for all."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saescale.activations import tokens
from saescale.activations.cache import check_spec, harvest_together
from saescale.activations.live import LiveSource
from saescale.activations.lm import LanguageModel
from saescale.activations.shards import shard_tokens

if TYPE_CHECKING:
    from saescale.training.train import Job


def fill_cache(job: Job, science: dict[str, Any], lm: LanguageModel) -> bool:
    """Harvest the shards this job was given, beside other jobs that were given the same; False when asked to stop on the way."""
    execution = job.content["execution"]
    hooks = job.content.get("hooks") or {science["lm"]["hook_name"]: execution["cache_key"]}
    folders = {hook: job.store.activations_dir(key) for hook, key in hooks.items()}
    for hook, folder in folders.items():
        check_spec(folder, {**science, "lm": {**science["lm"], "hook_name": hook}})
    corpus = tokens.read(job.store.corpus_dir(execution["corpus_key"]))
    sources = {split: LiveSource(lm, getattr(corpus, split), science["data"]["activation_dtype"]) for split in tokens.SPLITS}
    wanted = [(split, shard) for split, shard in job.content["shards"]]
    job.total = float(sum(shard_tokens(sources[split].tokens, shard) for split, shard in wanted))
    job.harvesting, limit = True, job.content.get("max_disk_gb")
    with closing(harvest_together(folders, sources, wanted, lambda: refuse_beyond(job.store.root, limit))) as rows:
        for written, note in rows:
            job.done += written
            job.show(f"harvest: {note}")
            if job.asked_to_stop():
                return False
    job.harvesting = False
    return True


def refuse_beyond(root: Path, max_disk_gb: float | None) -> None:
    """Raise ValueError when the store's activations fill what they may."""
    if max_disk_gb is None:
        return
    used = sum(f.stat().st_size for f in (root / "activations").glob("*/*.bin"))
    if used >= max_disk_gb * 1e9:
        raise ValueError(f"the harvest stopped at {used / 1e9:.2f} GB of activations, its limit being {max_disk_gb:g} GB: what "
                         "is harvested is safe. Raise --max-disk-gb and run the same command again to go on.")
