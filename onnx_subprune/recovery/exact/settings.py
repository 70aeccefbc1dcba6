"""How layers are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_subprune.calibration import HELD
from onnx_subprune.recovery.exact.activation_store import DEFAULT_MAX_BYTES

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How layers are fitted.

    Attributes:
        sequential: whether a layer reads what the pruned network gives it, as fitted so far, or the dense one.
        held: one sample in so many is held out to choose how far each fit is trusted; 0 for none.
        rows: rows to fit a layer on, at most, for each feature.
        max_features: layers that read more features at once keep the weights they have.
        max_bytes: of activations between segments in memory, for each of the two networks.
        batch_size: samples per run.
        seed: of the positions that are sampled.
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime.

    """

    sequential: bool = True
    held: int = HELD
    rows: int = 128
    max_features: int = 8192
    max_bytes: int = DEFAULT_MAX_BYTES
    batch_size: int = 32
    seed: int = 0
    providers: Sequence[str] = ("cpu",)
    threads: int | None = None
