"""Concept tables for tests of the law of presence."""

import numpy as np
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


def rows(q=1.2, sizes=(256, 512, 1024, 2048), seed=0, n=400):
    """f50 = 0.5 / 1024 at 1,024 alive latents, falling with exponent q."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        f = np.exp(rng.uniform(-10, -4.4))
        for size in sizes:
            present = rng.random() < 1 / (1 + np.exp(-2 * (np.log(f * 1024 / 0.5) + q * np.log(size / 1024))))
            what = {"category": "a", "concept": str(i), "count": 100, "frequency": f, "ambiguous": False, "score": float(present)}
            out.append({"run_id": f"r{size}", "dictionary": "trained", "n_latents": size, "n_alive": size, "seed": 0} | what)
    return pd.DataFrame(out)
