"""From a stream of tokens to the words it spells: vectorised, by token sequence, without searching text.

A word is a maximal run of letters, digits and underscores that does not begin with a digit: in source code, an identifier.
An occurrence stands at the word's LAST token: there the model has read all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SENTENCEPIECE_SPACE = "\u2581"
UNDECODABLE = "\ufffd"


@dataclass(frozen=True)
class Vocabulary:
    """What segmentation needs to know of each token id; every array is bool [vocabulary]."""

    pieces: list[str]  # decoded, a leading space is ' '
    word: np.ndarray  # spells letters, digits and underscores only, apart from leading spaces
    spaced: np.ndarray  # starts with a space, so it never continues a word
    numeric: np.ndarray  # its first character, leading spaces apart, is a digit: no word begins so
    sticks_left: np.ndarray  # not a word, but its first character may belong to the word before it
    sticks_right: np.ndarray  # not a word, but its last character may belong to the word after it


@dataclass(frozen=True)
class Words:
    """The whole words of one token stream, in order."""

    start: np.ndarray  # int64 [occurrence], index of the occurrence's first token
    last: np.ndarray  # int64 [occurrence], index of its last token
    name: np.ndarray  # int32 [occurrence], index into names
    names: list[str]  # the text, without the leading space
    n_tokens: np.ndarray  # int32 [name], tokens of the commonest spelling
    fewest_tokens: np.ndarray  # int32 [name], tokens of the shortest spelling
    n_stream: int  # tokens in the whole stream


def vocabulary_of(lm_path: Path) -> Vocabulary:
    """Of the tokenizer in a language model's folder."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(lm_path) / "tokenizer.json"))
    return read_vocabulary(decoded_pieces(tokenizer), tokenizer.all_special_ids)


def _byte_level_bytes() -> dict[str, int]:
    """The printable stand-in character of each byte in byte-level BPE vocabularies (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def decoded_pieces(tokenizer) -> list[str]:
    """The text of every token id of a Hugging Face tokenizer, leading space kept as ' '.

    Decoding one id at a time would lose SentencePiece's leading space. Byte-level vocabularies are recognised by
    their stand-in for the space; bytes that are no whole UTF-8 character become U+FFFD.
    """
    raw = [piece or "" for piece in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    table = _byte_level_bytes()
    if not any(piece.startswith("\u0120") for piece in raw):
        return [_byte_fallback(piece).replace(SENTENCEPIECE_SPACE, " ") for piece in raw]
    return [
        bytes(table[c] for c in piece).decode("utf-8", errors="replace") if all(c in table for c in piece) else piece
        for piece in raw
    ]


def _byte_fallback(piece: str) -> str:
    """SentencePiece spells a byte outside its vocabulary `<0x0A>`."""
    if len(piece) != 6 or not piece.startswith("<0x"):
        return piece
    return bytes([int(piece[3:5], 16)]).decode("utf-8", errors="replace")


def _is_word_character(character: str) -> bool:
    return character == "_" or character.isalnum()


def read_vocabulary(pieces: list[str], special_ids: Iterable[int] = ()) -> Vocabulary:
    """Classify token ids by their decoded text. SentencePiece's U+2581 is read as a space.

    Next to a special token, or to a piece that is not whole UTF-8, a word may be cut: there it is left out.
    """
    texts = [piece.replace(SENTENCEPIECE_SPACE, " ") for piece in pieces]
    cuts = np.array([UNDECODABLE in text for text in texts], dtype=bool)
    cuts[list(special_ids)] = True
    bare = [text.lstrip(" ") for text in texts]
    word = np.array([bool(b) and all(map(_is_word_character, b)) for b in bare], dtype=bool) & ~cuts
    first = np.array([bool(text) and _is_word_character(text[0]) for text in texts], dtype=bool)
    final = np.array([bool(text) and _is_word_character(text[-1]) for text in texts], dtype=bool)
    spaced = np.array([text.startswith(" ") for text in texts], dtype=bool)
    numeric = np.array([b[:1].isdigit() for b in bare], dtype=bool)
    return Vocabulary(texts, word, spaced, numeric, ~word & (first | cuts), ~word & (final | cuts))


def find_words(tokens: np.ndarray, segment: np.ndarray, vocabulary: Vocabulary) -> Words:
    """Every whole word of a token stream.

    `tokens` int [token]; `segment` int [token], a number that changes where the text does (document, or context window
    when the LM read windows): a word never crosses a change, and one that may have been cut by it is left out.
    """
    tokens = np.asarray(tokens)
    segment = np.asarray(segment)
    if tokens.ndim != 1 or segment.shape != tokens.shape:
        raise ValueError(
            f"tokens has shape {tokens.shape} and segment {segment.shape}: both are one number per token. "
            "Flatten them in the same order."
        )
    start, last = _word_runs(tokens, segment, vocabulary)
    spelling = _sequence_ids(tokens, start, last - start + 1)
    _, example, spelling, count = np.unique(spelling, return_index=True, return_inverse=True, return_counts=True)
    texts = ["".join(vocabulary.pieces[t] for t in tokens[start[i] : last[i] + 1]).lstrip(" ") for i in example]
    length = (last - start + 1)[example].astype(np.int32)
    names, name_of_spelling = np.unique(np.array(texts, dtype=object), return_inverse=True)
    fewest = np.full(len(names), np.iinfo(np.int32).max, dtype=np.int32)
    np.minimum.at(fewest, name_of_spelling, length)
    n_tokens = np.zeros(len(names), dtype=np.int32)
    rare_first = np.lexsort((length, count))
    n_tokens[name_of_spelling[rare_first]] = length[rare_first]  # the commonest spelling is written last
    return Words(start, last, name_of_spelling[spelling].astype(np.int32), names.tolist(), n_tokens, fewest, len(tokens))


def _word_runs(tokens: np.ndarray, segment: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """First and last token index of every run of tokens that spells one whole word."""
    word, spaced = vocabulary.word[tokens], vocabulary.spaced[tokens]
    joined = np.zeros(len(tokens), dtype=bool)  # this token continues the run of the one before it
    joined[1:] = word[1:] & word[:-1] & ~spaced[1:] & (segment[1:] == segment[:-1])
    start = np.flatnonzero(word & ~joined)
    last = np.flatnonzero(word & ~np.append(joined[1:], False))
    edge = np.append(np.append(True, segment[1:] != segment[:-1]), True)  # [i]: the text changes before token i
    before = np.append(True, vocabulary.sticks_right[tokens])  # [i]: the token before i may hold part of its word
    after = np.append(vocabulary.sticks_left[tokens], True)
    whole = ~vocabulary.numeric[tokens[start]] & (spaced[start] | ~(edge[start] | before[start]))
    whole &= ~(edge[last + 1] | after[last + 1])
    return start[whole], last[whole]


def _sequence_ids(tokens: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """One number per distinct token sequence, exact: grow every prefix by a token and renumber the pairs."""
    if not len(start):
        return np.zeros(0, dtype=np.int64)
    stride = int(tokens.max()) + 1
    ids = tokens[start].astype(np.int64)
    used, longer = stride, np.arange(len(start))
    for position in range(1, int(length.max())):
        longer = longer[length[longer] > position]
        pairs = ids[longer] * stride + tokens[start[longer] + position]
        distinct, ids[longer] = np.unique(pairs, return_inverse=True)
        ids[longer] += used
        used += len(distinct)
    return ids
