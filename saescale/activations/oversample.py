"""Controlled frequency: documents that hold a chosen name come several times in the SAE's training mix.

The language model has read the text as it is, and the harvest is the same; only the stream that dictionaries train on repeats the
activations of those documents. So the frequency of a concept for the dictionary is moved without moving it for the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saescale.activations.occurrences import find_names
from saescale.activations.tokens import TokenSplit
from saescale.activations.words import find_words, vocabulary_of


def repeats(split: TokenSplit, lm_path: Path, names: Sequence[str], factor: int) -> np.ndarray:
    """int64 [token]: how often each activation of the split comes in an epoch, `factor` in documents with any of `names`, else 1.

    Raises ValueError for a name that never occurs.
    """
    flat = split.flat()
    vocabulary = vocabulary_of(lm_path)
    words = find_words(flat.ids, flat.sequences, vocabulary)
    found = find_names(names, flat.ids, flat.sequences, vocabulary, words)
    absent = [name for name, n in zip(names, found.count, strict=True) if n == 0]
    if absent:
        raise ValueError(f"data.oversample names {', '.join(absent)}, which never occurs in the training text. Leave it out, or "
                         "spell it as the text does.")
    chosen = np.unique(flat.documents[found.last])
    return np.where(np.isin(flat.documents, chosen), factor, 1)
