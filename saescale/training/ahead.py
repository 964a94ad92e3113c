"""The next block of activations, read and brought to the GPU while the present one is trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Blocks(Protocol):
    """Blocks of rows by number."""

    def get(self, number: int) -> Tensor: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class InTurn:
    """Each block is read when it is asked for."""

    get: Callable[[int], Tensor]

    def close(self) -> None:
        """Nothing is under way."""


class Ahead:
    """Blocks of rows, read by number and brought to the device by a thread while the block before is worked on.

    `read(number)` gives rows on the host; `after(number)` the number of the block that will be asked for next, or None. A block
    that was not expected is read when it is asked for: what comes out never depends on what was expected.
    """

    def __init__(self, read: Callable[[int], Tensor], after: Callable[[int], int | None], device: torch.device) -> None:
        self.read, self.after, self.device = read, after, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._coming: tuple[int, threading.Thread, dict[str, Any]] | None = None

    def get(self, number: int) -> Tensor:
        """The block, on the device. An error of the reading thread is raised here."""
        block = self._take(number)
        following = self.after(number)
        if following is not None:
            self._start(following)
        return block

    def _take(self, number: int) -> Tensor:
        if self._coming is None or self._coming[0] != number:
            self.close()
            self._start(number)
        _, thread, found = self._coming
        self._coming = None
        thread.join()
        if "error" in found:
            raise found["error"]
        if self.stream is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(self.stream)
            found["block"].record_stream(here)  # it was made on the other stream: its memory is not to be given back too early
        return found["block"]

    def _start(self, number: int) -> None:
        found: dict[str, Any] = {}
        thread = threading.Thread(target=self._bring, args=(number, found), daemon=True)  # a hung reader keeps no process alive
        self._coming = (number, thread, found)
        thread.start()

    def _bring(self, number: int, found: dict[str, Any]) -> None:
        try:
            with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
                rows = self.read(number)
                if self.stream is not None:
                    rows = rows.pin_memory()
                found["block"] = rows.to(self.device, non_blocking=True)
        except BaseException as e:  # told to whoever asks for the block
            found["error"] = e

    def close(self) -> None:
        """Wait for what is being read, and forget it."""
        if self._coming is not None:
            self._coming[1].join()
            self._coming = None
