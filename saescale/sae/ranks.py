"""The processes that train one SAE together, as its mathematics sees them. What joins them is in training/parallel.py."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Ranks(Protocol):
    """A group of `size` processes, of which this is number `rank`. Every method is called by all of them, in the same order, and
    gives all of them the same bits."""

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks for the group."""
        ...

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        ...

    def totals(self, *numbers: float) -> Sequence[float]:
        """Sums over ranks, exact for whole numbers up to 2**53."""
        ...

    def least(self, *numbers: float) -> Sequence[float]:
        """The least over ranks of each."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """[size, ...]: the tensors of all ranks, which have one shape."""
        ...

    def from_first(self, value: Any) -> Any:
        """The first rank's value, anything JSON can say."""
        ...

    def to_first(self, mine: Tensor, places: Sequence[Tensor]) -> None:
        """Copies every rank's `mine` to places[rank] of the first rank; `places` may be empty on the others."""
        ...


class Alone:
    """A group of one: nothing to exchange."""

    rank, size, first = 0, 1, True

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor

    def totals(self, *numbers: float) -> Sequence[float]:
        return numbers

    def least(self, *numbers: float) -> Sequence[float]:
        return numbers

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor.unsqueeze(0)

    def from_first(self, value: Any) -> Any:
        return value

    def to_first(self, mine: Tensor, places: Sequence[Tensor]) -> None:
        places[0].copy_(mine)


ALONE = Alone()
