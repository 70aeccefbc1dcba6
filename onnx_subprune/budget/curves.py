"""The losses of a group as units go: one curve per group, the only thing that a budget looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.errors import InternalError

__all__ = ["Curve", "never_empty"]


@dataclass(frozen=True, eq=False)
class Curve:
    """The share of variance that a group keeps with its k most important units.

    Attributes:
        group: name of the group.
        size: units in the group, at least 1.
        order: [size] unit indices, most important first.
        share: [size + 1] never falling, from exactly 0 (k = 0) to exactly 1 (k = size).
        minimum: the fewest units that may stay, 0 to `size`.
        round_to: the group's widths must be a multiple of this (the full size is always allowed).
        least_cut: the fewest units that may go where not all stay.
        loss: [size + 1] absolute squared error per sample at the group's consumers when only the k most important
            units stay: never rising, exactly 0 at the full size. None where it was not measured.

    Raises:
        InternalError: the parts contradict each other.

    """

    group: str
    size: int
    order: NDArray[np.intp]
    share: NDArray[np.float64]
    minimum: int = 1
    round_to: int = 1
    loss: NDArray[np.float64] | None = None
    least_cut: int = 1

    def __post_init__(self) -> None:
        for name, dtype in (("order", np.intp), ("share", np.float64), ("loss", np.float64)):
            if getattr(self, name) is None:
                continue
            values = np.array(getattr(self, name), dtype=dtype)
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        problem = self._problem()
        if problem:
            raise InternalError(f"curve of group {self.group!r}: {problem}; please report this")

    def _problem(self) -> str | None:
        if self.size < 1 or not 0 <= self.minimum <= self.size or min(self.round_to, self.least_cut) < 1:
            return f"expected 0 <= minimum <= size, found size {self.size}, minimum {self.minimum}"
        if not np.array_equal(np.sort(self.order), np.arange(self.size)):
            return f"expected an order of {self.size} units, found {self.order.shape[0]} entries or duplicates"
        if self.share.shape != (self.size + 1,) or self.share[0] != 0.0 or self.share[-1] != 1.0:
            return f"expected {self.size + 1} shares from 0 to 1, found {self.share.shape}"
        if not bool((np.diff(self.share) >= 0).all()):
            return "expected shares that never fall"
        return None if self.loss is None else self._problem_of_loss(self.loss)

    def _problem_of_loss(self, loss: NDArray[np.float64]) -> str | None:
        if loss.shape != (self.size + 1,) or loss[-1] != 0.0 or not np.isfinite(loss).all():
            return f"expected {self.size + 1} finite losses that end with 0, found {loss.shape}"
        return None if bool((np.diff(loss) <= 0).all()) else "expected losses that never rise"


def never_empty(curves: Sequence[Curve]) -> list[Curve]:
    """The same curves with a minimum of one unit or more.

    Args:
        curves: one per group.

    >>> curve = Curve("conv1", 4, np.arange(4), np.linspace(0, 1, 5), minimum=0)
    >>> never_empty([curve])[0].minimum
    1

    """
    return [replace(curve, minimum=max(1, curve.minimum)) for curve in curves]
