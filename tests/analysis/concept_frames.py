"""Concept tables for tests of the law of presence."""

import pandas as pd


def frame_of(record):
    """Rows of concepts.parquet from scores [dictionary][concept]."""
    rows = []
    for d, scores in zip(record["dictionaries"], record["scores"], strict=True):
        about = {name: d[name] for name in ("run_id", "n_latents", "n_alive", "seed")}
        about |= {"dictionary": "trained" if d["trained"] else "untrained", "category": "words", "count": 10, "ambiguous": False}
        for concept, score in zip(record["concepts"], scores, strict=True):
            rows.append(about | {"concept": concept["name"], "frequency": concept["frequency"], "score": score})
    return pd.DataFrame(rows)
