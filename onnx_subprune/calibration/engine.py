"""One pass over the data that leaves a Gram matrix per tap: memory of O(sum of d²) and two batches, never O(samples).

All tapped tensors of a batch are fetched in one run, while products are taken of the batch before. Before the pass a
model that returns only their shapes is run on one sample: the batch is made as small as the memory limit asks for, and
only if one sample alone takes four times the limit are the taps spread over several passes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import onnx
import onnxruntime as ort

from onnx_subprune.calibration.accumulate import Accumulator
from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.layout import Feeds
from onnx_subprune.calibration.outliers import Magnitudes, Outliers, PickedDataset
from onnx_subprune.calibration.statistics import Gram, Statistics, thin_taps
from onnx_subprune.calibration.taps import Tap, expose, probe_shapes
from onnx_subprune.errors import DataError, OptionError
from onnx_subprune.model import fingerprint, input_specs, open_session, run
from onnx_subprune.progress import Progress
from onnx_subprune.threads import ahead, shared, side_by_side

__all__ = ["DEFAULT_BATCH_SIZE", "DEFAULT_MAX_BYTES", "calibrate"]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 32
# The runtime holds what it returns a second time, and the batch before is in use: at most three times this is held.
DEFAULT_MAX_BYTES = 1 << 27
_ITEM_BYTES = 4
# One sample may take so many times more before it is run again for the rest: a pass costs a whole inference.
_FEW_PASSES = 4
# Of the second moments of a tap, by a few outlying samples: what decides, and what the user should know.
_DECIDING_SHARE, _LARGE_SHARE = 0.5, 0.1


@dataclass(frozen=True)
class _Plan:
    """How the memory limit is kept.

    Attributes:
        batch_size: of samples as large as the first one.
        entries: of the inputs of one run, at most.
        passes: the tensors to fetch in each pass.

    """

    batch_size: int
    entries: int
    passes: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Job:
    """A model, its data, and where to run it."""

    model: onnx.ModelProto
    data: Dataset
    providers: Sequence[str]
    threads: int | None

    def plan(self, tensors: Mapping[str, Collection[str]], batch_size: int, max_bytes: int) -> _Plan:
        """Choose the batch size and the passes by the size of the tensors, and of what they need, at one sample."""
        feeds = next(iter(self.data.batches(1)), None)
        if feeds is None:
            raise DataError(f"{self.data.source}: at least one sample expected, found none; give some calibration data")
        single = self._sizes(sorted({name for needed in tensors.values() for name in needed}), feeds)
        sizes = {tensor: sum(single[name] for name in needed) for tensor, needed in tensors.items()}
        total, samples = sum(sizes.values()), self.data.samples_in(feeds)
        entries = max_bytes * _entries(feeds) // max(total, 1)
        if total > _FEW_PASSES * max_bytes:
            return _Plan(1, entries, tuple(_packed(sizes, _FEW_PASSES * max_bytes)))
        return _Plan(min(batch_size, max(1, max_bytes * samples // max(total, 1))), entries, (tuple(tensors),))

    def _sizes(self, tensors: Sequence[str], feeds: Feeds) -> dict[str, int]:
        """Bytes that each tensor costs to fetch when the model runs on `feeds`."""
        sizes = dict.fromkeys(tensors, 0)
        if fetched := self._computed(tensors):
            probe, outputs = probe_shapes(self.model, fetched)
            session = open_session(probe, self.providers, threads=self.threads, optimise=False)
            shapes = run(session, feeds, list(outputs.values()))
            sizes |= {name: math.prod(map(int, shapes[outputs[name]])) * _ITEM_BYTES for name in fetched}
        return sizes

    def accumulate(
        self,
        users: Mapping[str, Sequence[Accumulator]],
        plan: _Plan,
        tell: Callable[[int], None],
        magnitudes: Magnitudes | None = None,
    ) -> int:
        """Pass over the data, feeding each tensor to its accumulators; return the number of samples seen."""
        accumulators = list(chain.from_iterable(users.values()))
        relative = {accumulator.tap.relative for accumulator in accumulators} - {""}
        fetched = self._computed(dict.fromkeys([*users, *sorted(relative)]))
        session = self._fetching(fetched)
        seen = 0
        for feeds, values in ahead(self._runs(session, fetched, plan, magnitudes)):
            shared(partial(_add, {**feeds, **values}), accumulators)
            seen += self.data.samples_in(feeds)
            tell(self.data.samples_in(feeds))
        return seen

    def picked(self, places: Sequence[int]) -> _Job:
        """Return the same job on some samples alone."""
        return replace(self, data=PickedDataset(self.data, places))

    def largest_share(self, plan: _Plan, grams: Mapping[Tap, Gram]) -> tuple[float, str]:
        """Return the largest share that these samples have in the second moments of a tap, and its tensor."""
        accumulators = [Accumulator(tap) for tap in grams]
        users = _by_tensor(accumulators)
        for names in plan.passes:
            self.accumulate({name: users[name] for name in names}, plan, lambda _: None)
        shares = []
        for tap, accumulator in zip(grams, accumulators, strict=True):
            whole = _trace(grams[tap].matrix)
            shares.append((_trace(accumulator.finish()) / whole if whole > 0 else 0.0, accumulator.tap.tensor))
        return max(shares, key=lambda pair: pair[0])

    def _runs(
        self, session: ort.InferenceSession, fetched: Sequence[str], plan: _Plan, magnitudes: Magnitudes | None
    ) -> Iterator[tuple[Feeds, dict[str, np.ndarray]]]:
        for batch in self.data.placed(plan.batch_size):
            if magnitudes is not None:
                magnitudes.add(*batch)
            for feeds in self._pieces(batch.feeds, plan.entries):
                yield feeds, run(session, feeds, fetched) if fetched else {}

    def _pieces(self, batch: Feeds, entries: int) -> Iterator[Feeds]:
        """Cut a batch whose samples are larger than the first one was."""
        samples = self.data.samples_in(batch)
        size = max(1, entries * samples // max(_entries(batch), 1))
        if size >= samples or not self.data.divisible:
            yield batch
            return
        for start in range(0, samples, size):
            yield self.data.rows_of(batch, np.arange(start, min(start + size, samples)))

    def _fetching(self, fetched: Sequence[str]) -> ort.InferenceSession:
        exposed = expose(self.model, fetched)
        # What nobody asks for is not computed: the logits of a language model are a fifth of its work.
        wanted = [output for output in exposed.graph.output if output.name in fetched]
        del exposed.graph.output[:]
        exposed.graph.output.extend(wanted)
        return open_session(exposed, self.providers, threads=self.threads)

    def _computed(self, tensors: Iterable[str]) -> list[str]:
        """The tensors that a run must return: all but the inputs that are fed."""
        fed = {spec.name for spec in input_specs(self.model)}
        return [name for name in tensors if name not in fed]


def calibrate(
    model: onnx.ModelProto,
    taps: Sequence[Tap],
    data: Dataset,
    *,
    providers: Sequence[str] = ("cpu",),
    batch_size: int = DEFAULT_BATCH_SIZE,
    max_bytes: int = DEFAULT_MAX_BYTES,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Statistics:
    """Run `data` through `model` and return the second moments of every tap.

    Args:
        model: the model as it is; it is not changed.
        taps: where to take statistics; duplicates are taken once.
        data: samples for the model (`open_data`).
        providers: execution providers, most wanted first.
        batch_size: samples per run at most.
        max_bytes: limit for the tapped tensors of one batch, held to by smaller batches, and four times of it for those
            of one sample, held to by more passes.
        progress: called after each batch with the samples done and their total over all passes (None if unknown).
        threads: intra-op threads of the runtime.

    Raises:
        DataError: a sample does not fit the model, or an activation is NaN or infinite.
        ModelError: a tapped tensor is not in the graph, or cannot be fetched.
        OptionError: no taps, or an option out of its range.

    """
    if not taps or batch_size < 1 or max_bytes < 1:
        raise OptionError(
            f"at least one tap, a batch size and a memory limit above zero expected, found {len(taps)} taps, "
            f"batch size {batch_size} and limit {max_bytes}; change these options"
        )
    job = _Job(model, data, providers, threads)
    accumulators = {tap: Accumulator(tap) for tap in sorted(set(taps))}
    users = _by_tensor(accumulators.values())
    magnitudes = Magnitudes()
    plan = job.plan({tensor: _needed_tensors(readers) for tensor, readers in users.items()}, batch_size, max_bytes)
    logger.debug("calibration: batches of %d in %d passes", plan.batch_size, len(plan.passes))
    tell = _counter(progress, data.samples, len(plan.passes))
    seen = set()
    with side_by_side(threads), _named_outliers(magnitudes, data):
        for number, names in enumerate(plan.passes):
            looked_at = None if number else magnitudes
            seen.add(job.accumulate({name: users[name] for name in names}, plan, tell, looked_at))
    if len(seen) > 1:
        raise DataError(f"{data.source}: equal passes expected, found {sorted(seen)} samples; make it repeatable")
    grams = {tap: Gram(accumulator.count, accumulator.finish()) for tap, accumulator in accumulators.items()}
    warnings = _weighed_outliers(job, plan, grams, magnitudes.outliers())
    by_key = {tap.key: gram for tap, gram in grams.items()}
    statistics = Statistics(by_key, seen.pop(), fingerprint(model), warnings=tuple(warnings))
    _warn_thin(statistics)
    return statistics


@contextmanager
def _named_outliers(magnitudes: Magnitudes, data: Dataset) -> Iterator[None]:
    """Name the outlying samples in an error of the sums, which they are likely the cause of."""
    try:
        yield
    except DataError as error:
        if outliers := magnitudes.outliers():
            raise DataError(f"{outliers[0].describe(data)}; take it out ({error})") from error
        raise


def _weighed_outliers(job: _Job, plan: _Plan, grams: Mapping[Tap, Gram], outliers: Sequence[Outliers]) -> Iterator[str]:
    """Yield a warning for outlying samples that have a large share in the moments of a tap.

    Raises:
        DataError: they decide the moments of a tap.

    """
    for few in outliers:
        share, tensor = job.picked(few.places).largest_share(plan, grams)
        weight = f"which makes {share:.0%} of the second moments of '{tensor}'"
        if share > _DECIDING_SHARE:
            raise DataError(f"{few.describe(job.data)}, {weight}; take it out")
        if share > _LARGE_SHARE:
            line = f"{few.describe(job.data)}, {weight}; look at it"
            yield line


def _trace(matrix: np.ndarray) -> float:
    """Return the sum of squares in a Gram matrix [blocks, d + 1, d + 1]."""
    return float(np.einsum("bii->", matrix[:, :-1, :-1]))


def _entries(feeds: Feeds) -> int:
    return sum(array.size for array in feeds.values())


def _by_tensor(accumulators: Iterable[Accumulator]) -> dict[str, list[Accumulator]]:
    users: dict[str, list[Accumulator]] = {}
    for accumulator in accumulators:
        users.setdefault(accumulator.tap.tensor, []).append(accumulator)
    return users


def _needed_tensors(readers: Iterable[Accumulator]) -> set[str]:
    """Return the tensors that accumulators read, those that errors are relative to included."""
    return {tensor for accumulator in readers for tensor in accumulator.tap.tensors}


def _add(values: Mapping[str, np.ndarray], accumulator: Accumulator) -> None:
    """Add what its tap reads of one batch to an accumulator."""
    tap = accumulator.tap
    accumulator.add(values[tap.tensor], values[tap.relative] if tap.relative else None)


def _packed(sizes: Mapping[str, int], limit: int) -> list[tuple[str, ...]]:
    """Tensors in runs whose sizes add up to at most `limit`, or one tensor alone where it is larger."""
    runs: list[list[str]] = []
    total = 0
    for name, size in sizes.items():
        if not runs or (size and total + size > limit):
            runs.append([])
            total = 0
        runs[-1].append(name)
        total += size
    return [tuple(run) for run in runs]


def _counter(progress: Progress | None, samples: int | None, passes: int) -> Callable[[int], None]:
    done = 0
    total = None if samples is None else samples * passes

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return tell


def _warn_thin(statistics: Statistics) -> None:
    if thin := thin_taps(statistics):
        # The caller reports what concerns its result; here it is for those who follow the log.
        logger.info(
            "%d of %d taps have too few rows for their width, and the recovery may over-fit: %s%s",
            len(thin),
            len(statistics.grams),
            thin[0],
            ", ..." if len(thin) > 1 else "",
        )
