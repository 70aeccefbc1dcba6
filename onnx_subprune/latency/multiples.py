"""Which multiples of channels pay on this machine, learnt from measurements: `--round-to auto`.

Kernels work on blocks of channels: the vectors of a CPU, the tiles of a tensor core. A layer that does not fill its
last block saves nothing, and some kernels cannot run on it at all, so that a slower one does. Chains of layers are
timed at widths between 32 and 64 (on a GPU 128 and 256), taking turns. From multiples of 16 (64) down: widths that are
multiples of m and not of 2 m pay if, against the next multiple of 2 m, they save at least half of what a straight line
from the narrowest to the widest would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.evaluate.intervals import median_interval
from onnx_subprune.latency.families import FAMILIES
from onnx_subprune.latency.layer_chains import Sizes, chain
from onnx_subprune.latency.timing import Effort, times
from onnx_subprune.model import open_session

__all__ = ["WIDTHS", "Decision", "decided", "measured_multiples"]

Array = NDArray[Any]

WIDTHS = (32, 33, 34, 36, 40, 44, 47, 48, 50, 52, 56, 58, 60, 62, 63, 64)
"""In units of 1 on a CPU, of 4 on a GPU; the first and the last are full blocks of any kernel."""

_PAYS = 0.5
_BLOCKS = 9
# The widest vectors of a CPU hold 16 floats; the tiles of a tensor core are some 64 wide.
_LARGEST = 4
_EFFORTS = (Effort(30, 1.5), Effort(60, 3.0))
_ON_CPU, _ON_GPU = Sizes(), Sizes(outer=256, image=56, rows=4096, repeats=2, batch=8)


@dataclass(frozen=True)
class Decision:
    """The multiple that pays for a kind of work, and whether the measurements left no doubt of it.

    Attributes:
        multiple: of channels, 1 where no multiple pays.
        sure: False where the times were too close to call.

    """

    multiple: int
    sure: bool


def measured_multiples(
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    dtype: str = "float32",
    *,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Decision]:
    """Measure which multiples pay, by kind of work; it takes a few seconds.

    Args:
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime.
        dtype: of inputs and weights.
        progress: called with the kinds of work that are done and their number.

    Raises:
        OptionError: a provider is unknown or did not load.

    """
    model, _ = chain("matmul", 8, Sizes(repeats=1, rows=8), dtype)
    on_cpu = open_session(model, providers, threads=threads).get_providers() == ["CPUExecutionProvider"]
    decisions: dict[str, Decision] = {}
    for family in FAMILIES:
        if progress is not None:
            progress(len(decisions), len(FAMILIES))
        decisions[family] = _measure(family, on_cpu, providers, threads, dtype)
    return decisions


def _measure(family: str, on_cpu: bool, providers: Sequence[str], threads: int | None, dtype: str) -> Decision:
    scale, sizes = (1, _ON_CPU) if on_cpu else (4, _ON_GPU)
    widths = [scale * width for width in WIDTHS]
    models: list[onnx.ModelProto] = []
    for width in widths:
        model, feeds = chain(family, width, sizes, dtype)
        models.append(model)
    decision = Decision(1, False)
    for effort in _EFFORTS:
        timed = times(models, feeds, providers=providers, threads=threads, effort=effort)
        decision = decided(widths, timed.blocks(_BLOCKS))
        if decision.sure:
            break
    return decision


def decided(widths: Sequence[int], seconds: Array) -> Decision:
    """Return the multiple that pays.

    Where the measurements leave it open, the smaller multiple is taken if the narrower widths are any faster at all:
    it cannot be much worse.

    Args:
        widths: rising, the first and the last multiples of every multiple in question.
        seconds: [blocks of rounds, widths].

    """
    multiple, sure = widths[-1] // _LARGEST, True
    while multiple > 1:
        saved = _saved(widths, seconds, multiple // 2)
        if saved is None:
            break
        low, high = median_interval(saved) or (-math.inf, math.inf)
        clear = not low < _PAYS <= high
        sure = sure and clear
        if np.median(saved) < (_PAYS if clear else 0.0):
            break
        multiple //= 2
    return Decision(multiple, sure)


def _saved(widths: Sequence[int], seconds: Array, multiple: int) -> Array | None:
    """Return the time that odd multiples save against the next even ones [blocks], by a fair share; None without."""
    slope = (seconds[:, -1] - seconds[:, 0]) / (widths[-1] - widths[0])
    place: Mapping[int, int] = {width: index for index, width in enumerate(widths)}
    odd = [width for width in widths if width % (2 * multiple) == multiple and width + multiple in place]
    if not odd:
        return None
    gains = sum(seconds[:, place[width + multiple]] - seconds[:, place[width]] for width in odd)
    return np.asarray(gains / np.maximum(slope * multiple * len(odd), 1e-12))
