"""Latency and throughput of models side by side.

All sessions live in one process and take turns, in one order and then in the other, so that whatever slows the machine
slows them alike. A ratio is the median over rounds of the paired ratio within a round; it repeats far better than the
ratio of two medians. Threads of waiting sessions do not spin (`open_session` sees to that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_subprune.errors import OptionError
from onnx_subprune.model import InputSpec, input_specs, open_session, run
from onnx_subprune.structure import is_float

__all__ = ["Latency", "bench", "random_feeds"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Latency:
    """Times of one model.

    Attributes:
        median_ms: median time of a run, in milliseconds.
        p90_ms: nine runs in ten were at most this long.
        mean_ms: mean time of a run.
        throughput: samples per second at the median, a sample being an entry of the first input's first axis.
        ratio_to_first: median over rounds of this model's time by the first model's; below 1 is faster.

    """

    median_ms: float
    p90_ms: float
    mean_ms: float
    throughput: float
    ratio_to_first: float


def bench(
    models: Sequence[onnx.ModelProto],
    feeds: Mapping[str, Array],
    *,
    runs: int = 50,
    warmup: int = 5,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> list[Latency]:
    """Time `models` on the same inputs, taking turns; one Latency per model, in order.

    Args:
        models: what to compare, the reference first.
        feeds: an array per input.
        runs: timed rounds, in each of which every model runs once.
        warmup: rounds before those, not counted.
        providers: execution providers, most wanted first.
        threads: intra-op threads of each session.

    Raises:
        OptionError: no models, no rounds, inputs that differ between the models, or feeds that do not name them.
        DataError: the feeds do not fit.

    """
    if not models or runs < 1 or warmup < 0:
        raise OptionError(
            f"at least one model and one round expected, found {len(models)} models, {runs} runs and {warmup} warm-up "
            "rounds; change these options"
        )
    _check_inputs(models, feeds)
    # Packed, because that is how the model will run where it is used.
    sessions = [open_session(model, providers, threads=threads, packed=True) for model in models]
    for _ in range(warmup):
        _round(sessions, feeds, backwards=False)
    seconds = np.array([_round(sessions, feeds, backwards=bool(number % 2)) for number in range(runs)])
    first = np.asarray(next(iter(feeds.values())))
    samples = len(first) if first.ndim else 1
    return [_latency(column, seconds[:, 0], samples) for column in seconds.T]


def random_feeds(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Array]:
    """Make inputs of the given shapes: standard normal floats; integers 0 and 1, which any vocabulary or mask holds.

    Raises:
        OptionError: an input has no shape, or a dtype that random values do not suit.

    """
    generator = np.random.default_rng(seed)
    return {spec.name: _random(spec, shapes, generator) for spec in specs}


def _random(spec: InputSpec, shapes: Mapping[str, Sequence[int]], generator: np.random.Generator) -> Array:
    if spec.name not in shapes:
        raise OptionError(f"a shape for input '{spec.name}' expected, found none; give it with --input-shapes")
    shape = tuple(shapes[spec.name])
    if spec.dtype.kind in "biu":
        return generator.integers(0, 2, shape).astype(spec.dtype)
    if is_float(spec.dtype):
        return np.asarray(generator.standard_normal(shape)).astype(spec.dtype)
    raise OptionError(f"input '{spec.name}' expected to hold numbers, found {spec.dtype}; give real inputs instead")


def _check_inputs(models: Sequence[onnx.ModelProto], feeds: Mapping[str, Array]) -> None:
    """Raise OptionError unless all models take the same inputs and `feeds` holds exactly those."""
    reference = {spec.name: spec for spec in input_specs(models[0])}
    for number, model in enumerate(models[1:], start=2):
        other = {spec.name: spec for spec in input_specs(model)}
        if different := [name for name in reference | other if not _alike(reference.get(name), other.get(name))]:
            name = different[0]
            raise OptionError(
                f"model {number} expected to take the inputs of the first, found {_shown(other.get(name))} where that "
                f"has {_shown(reference.get(name))}; compare models with equal inputs"
            )
    if odd := sorted(reference.keys() ^ feeds.keys()):
        raise OptionError(f"feeds for {sorted(reference)} expected, '{odd[0]}' is missing or unknown; name every input")


def _alike(one: InputSpec | None, other: InputSpec | None) -> bool:
    """Same dtype and rank, and no axis of two different fixed sizes; symbols may differ."""
    if one is None or other is None or one.dtype != other.dtype or len(one.shape) != len(other.shape):
        return False
    pairs = zip(one.shape, other.shape, strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _shown(spec: InputSpec | None) -> str:
    return "nothing" if spec is None else f"'{spec.name}' {spec.dtype} {list(spec.shape)}"


def _round(sessions: Sequence[ort.InferenceSession], feeds: Mapping[str, Array], *, backwards: bool) -> list[float]:
    """Seconds of one run of every session, by session."""
    seconds = [0.0] * len(sessions)
    for place in reversed(range(len(sessions))) if backwards else range(len(sessions)):
        start = perf_counter()
        run(sessions[place], feeds)
        seconds[place] = perf_counter() - start
    return seconds


def _latency(seconds: Array, first: Array, samples: int) -> Latency:
    median = float(np.median(seconds))
    return Latency(
        median_ms=1e3 * median,
        p90_ms=1e3 * float(np.percentile(seconds, 90)),
        mean_ms=1e3 * float(np.mean(seconds)),
        throughput=samples / median,
        ratio_to_first=float(np.median(seconds / first)),
    )
