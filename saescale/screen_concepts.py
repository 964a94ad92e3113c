"""What `saescale concepts` shows: how many concepts each dictionary and each control has a latent for, and what to know of it."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from saescale.records.concepts import DICTIONARIES, ConceptRecord
from saescale.screen import console

SHOWN_WARNINGS = 12


def show(record: ConceptRecord) -> None:
    definition, corpus = record.about["definition"], record.about["corpus"]
    console.print(f"{len(record.concepts)} concepts in {corpus['n_tokens']:,} tokens of {escape(corpus['name'])}; present: F1 of "
                  f"recall and precision at 1 to {1 / definition['prevalence'] - 1:.0f} (and at the text's prevalence), on the "
                  "other half of the documents", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    at_least = [f"F1 >= {t:g}" for t in definition["taus"]]
    for name in ("dictionary", "n_latents", "alive", "seeds", "scored", *at_least, "at the text's", "prompt"):
        table.add_column(name, justify="left" if name == "dictionary" else "right")
    for row in rows(record):
        table.add_row(*row)
    console.print(table)
    for line in record.about["warnings"][:SHOWN_WARNINGS]:
        console.print(f"[yellow]note[/] {escape(line)}", soft_wrap=True)
    if (more := len(record.about["warnings"]) - SHOWN_WARNINGS) > 0:
        console.print(f"... and {more} more in concepts.json")


def rows(record: ConceptRecord) -> list[tuple[str, ...]]:
    """One row per kind and size, its seeds counted together: shares of the scored concepts that are present."""
    found = []
    keys = ["dictionary", "n_latents"]
    for (kind, n_latents), part in record.table.groupby(keys):
        scored = part[part["score"].notna()]
        shares = [_percent((scored["score"] >= tau).mean()) for tau in record.about["definition"]["taus"]]
        n_seeds = part[["run_id", "seed"]].drop_duplicates().shape[0]
        natural = _percent((scored["f1_natural"] >= record.about["definition"]["taus"][0]).mean())
        found.append((kind, str(n_latents), f"{part['n_alive'].mean():.0f}", str(n_seeds), str(len(scored) // n_seeds), *shares,
                      natural, _percent(scored["prompt_hit"].astype("Float64").mean())))
    return sorted(found, key=lambda r: (DICTIONARIES.index(r[0]), int(r[1])))


def _percent(share: Any) -> str:
    import pandas as pd

    return "-" if pd.isna(share) else f"{share:.0%}"
