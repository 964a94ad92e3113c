"""For the tests of activations: a corpus of a few made-up documents and the bundled language model."""

import random

import pytest
import torch

from saescale.activations import tokens
from saescale.activations.folder import BUNDLED, LMFolder
from saescale.activations.lm import LanguageModel
from saescale.activations.text import Document, corpus_hash
from saescale.records.store import Store

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    r = random.Random(0)
    words = ["def", "return", "import", "self", "value", "for", "in", "range", "print", "class", "if", "else", "None", "True"]
    return [Document(f"doc{i:02d}.py", " ".join(r.choices(words, k=r.randrange(20, 160)))) for i in range(40)]


@pytest.fixture(scope="session")
def data(documents) -> dict:
    """The `data` part of a science block: forward batches of 4 x 16 tokens."""
    return {"corpus": "text_files", "corpus_sha256": corpus_hash(documents),
            "tokenizer_sha256": LMFolder(BUNDLED).tokenizer_sha256,
            "held_out_fraction": 0.25, "n_ctx": 16, "batch_sequences": 4, "activation_dtype": "bfloat16", "data_seed": 0,
            "max_train_tokens": None}


@pytest.fixture(scope="session")
def corpus(documents, data, tmp_path_factory) -> tokens.Corpus:
    return tokens.prepare(Store(tmp_path_factory.mktemp("corpus")), documents, LMFolder(BUNDLED), data)


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    torch.set_num_threads(1)
    return LanguageModel(BUNDLED, HOOK)
