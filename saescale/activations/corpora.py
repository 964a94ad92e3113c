"""What a corpus is to those who tokenise it: documents that can be read from any place again. Knows no torch.

`data.corpus` names one of the kinds below; each has a file: text.py (the standard library, a folder of texts), files.py,
token_arrays.py, hub_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from saescale.activations.folder import LMFolder
from saescale.activations.text import Document

LARGE_BYTES = 256e6  # a corpus beyond this is tokenised at launch, not by every plan


class Reader(Protocol):
    """Documents in order. After each, `state` says where to go on, and `fraction` how much is read."""

    def __iter__(self) -> Iterator[Document]: ...

    def state(self) -> Any: ...

    def fraction(self) -> float: ...


@runtime_checkable
class Source(Protocol):
    """A corpus. `large`: rows go to disk part by part, and a plan does not wait for them; `in_order`: read from its beginning
    only as far as data.max_train_tokens needs, instead of whole and shuffled."""

    large: bool
    in_order: bool

    def sha256(self) -> str:
        """What identifies the corpus."""
        ...

    def reader(self, state: Any = None) -> Reader: ...


class Listed:
    """Documents that are in memory."""

    large = in_order = False

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents

    def sha256(self) -> str:
        from saescale.activations.text import corpus_hash

        return corpus_hash(self.documents)

    def reader(self, state: Any = None) -> Reader:
        return ListReader(self.documents, state or 0)


class ListReader:
    def __init__(self, documents: Sequence[Document], at: int) -> None:
        self.documents, self.at = documents, at

    def __iter__(self) -> Iterator[Document]:
        while self.at < len(self.documents):
            self.at += 1
            yield self.documents[self.at - 1]

    def state(self) -> int:
        return self.at

    def fraction(self) -> float:
        return self.at / max(len(self.documents), 1)


def open_corpus(said: Mapping[str, Any], lm: LMFolder) -> Source:
    """The corpus of `data` settings: corpus, path, and what its kind reads besides."""
    kind, path = said["corpus"], said["path"]
    if kind == "files":
        from saescale.activations.files import Files

        return Files(path, said["text_field"], said["document_separator"])
    if kind == "tokens":
        from saescale.activations.token_arrays import TokenArrays

        return TokenArrays(path, lm)
    if kind == "huggingface":
        from saescale.activations.hub_dataset import HubDataset

        return HubDataset(path, said["subset"], said["split"], said["revision"], said["text_field"])
    from saescale.activations.text import load_documents

    return Listed(load_documents(kind, path))
