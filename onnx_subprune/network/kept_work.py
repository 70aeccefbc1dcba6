"""What one run has paid for and the next can start from: statistics, and the errors of groups that were pruned alone.

Both are kept in the folder of measurements (`latency.cache`), under all that they depend on: the model, the data, the
options that count, the code of this package, the runtime and the machine. So another target starts from there, and so
does a run that was killed. What cannot be kept or read is computed: only the time of a run depends on it.

Arrays are known by their content; files and folders by the names, sizes and times of change of all their files. Data of
any other kind (a function, a stream) may give other samples the next time, and nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from onnx_subprune.calibration import Statistics
from onnx_subprune.calibration.integrity import checksum
from onnx_subprune.errors import SubpruneError
from onnx_subprune.latency import Record, cache_folder, machine
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options

__all__ = ["MOST_BYTES", "data_digest", "has_statistics", "kept_losses", "kept_statistics"]

_logger = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""Of all statistics that are kept; the ones that were not used for the longest time go first."""

_STATISTICS = "statistics"
# Options that neither statistics nor the errors of single groups depend on.
_FITS = ("rows", "sweeps")


def kept_statistics(analysis: Analysis, data: Any, options: Options, take: Callable[[], Statistics]) -> Statistics:
    """Return the statistics of an earlier run on the same data, or take and keep them.

    Args:
        analysis: of the dense network.
        data: as it was given to `prune`.
        options: which samples, where they run, and whether anything is kept.
        take: takes them.

    """
    path = _path_of(analysis, data, options)
    if path is None:
        return take()
    if path.exists():
        with suppress(SubpruneError, OSError):
            statistics = Statistics.load(path)
            os.utime(path)
            _logger.info("statistics of an earlier run: '%s'", path)
            return statistics
    statistics = take()
    _keep(statistics, path)
    return statistics


def has_statistics(analysis: Analysis, data: Any, options: Options) -> bool:
    """Whether there are statistics of an earlier run on the same data.

    Args:
        analysis: of the dense network.
        data: as it was given to `prune`.
        options: which samples, where they run, and whether anything is kept.

    """
    path = _path_of(analysis, data, options)
    return path is not None and path.exists()


def _path_of(analysis: Analysis, data: Any, options: Options) -> Path | None:
    """Return where the statistics of a run are kept; None where nothing is kept."""
    digest = data_digest(data) if options.cache else None
    if digest is None:
        return None
    key = {**_common(analysis, digest, options), "exact": options.recovery == "exact"}
    return cache_folder() / f"{_STATISTICS}-{_hashed(key)}.safetensors"


def kept_losses(analysis: Analysis, data: Any, statistics: Statistics, options: Options) -> Record | None:
    """Return the record of errors at the outputs with one group pruned alone, by group and width.

    Args:
        analysis: of the dense network.
        data: as it was given to `prune`.
        statistics: by which units are ranked and recovered.
        options: how units are ranked and recovered, and on which samples networks run.

    Returns:
        The record, with what earlier runs have measured; None where nothing is kept.

    """
    digest = data_digest(data) if options.cache else None
    if digest is None:
        return None
    recovery = {name: value for name, value in asdict(options.recovery_options).items() if name not in _FITS}
    # Of very many groups the losses are measured in blocks, of as many widths as there are levels.
    groups = {"ignore": options.ignore, "only": options.only, "levels": list(options.levels)}
    key = {**_common(analysis, digest, options), **groups, "recovery": recovery, "moments": _moments(statistics)}
    return Record("losses", key)


def data_digest(data: Any) -> str | None:
    """Return what tells data from all others; None where nothing does.

    Args:
        data: as it was given to `prune`.

    """
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        return _hashed([path.is_dir(), *_files(path)]) if path.exists() else None
    if isinstance(data, np.ndarray):
        data = {"": data}
    if not isinstance(data, Mapping) or not all(map(_is_plain, data.values())):
        return None
    return checksum({}, data)


def _is_plain(array: object) -> bool:
    return isinstance(array, np.ndarray) and not array.dtype.hasobject


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    for file in files:
        facts = file.stat()
        yield str(file.relative_to(path)) if path.is_dir() else file.name, facts.st_size, facts.st_mtime_ns


def _common(analysis: Analysis, digest: str, options: Options) -> dict[str, Any]:
    names = ("samples", "seed", "batch_size", "prune_normalised", "input_shapes", "outputs_at", "custom_ops")
    return {
        **machine(options.providers, options.threads),
        "code": _code(),
        "model": analysis.fingerprint,
        "stripped": options.strip_initializer_inputs,
        "data": digest,
        **{name: getattr(options, name) for name in names},
    }


@cache
def _code() -> str:
    """Return a digest of this package: what other code has computed is not taken over."""
    digest = hashlib.sha256()
    packages = Path(__file__).resolve().parents[1]
    for folder in (packages, packages.parent / "passes"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _moments(statistics: Statistics) -> str:
    counts = {key: gram.count for key, gram in statistics.grams.items()}
    header = {"samples": statistics.samples, "counts": counts}
    return checksum(header, {key: gram.matrix for key, gram in statistics.grams.items()})


def _hashed(key: object) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def _keep(statistics: Statistics, path: Path) -> None:
    """Write statistics, and remove the oldest where there would be too much; what cannot be written is not kept."""
    size = sum(gram.matrix.nbytes for gram in statistics.grams.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_space(path.parent, MOST_BYTES - size)
        if size <= MOST_BYTES:
            statistics.save(path)
    except (OSError, SubpruneError) as error:
        _logger.info("statistics are not kept: %s", error)


def _make_space(folder: Path, most: int) -> None:
    """Remove the statistics that were not used for the longest time until the others fit into so many bytes."""
    files = [(path, path.stat()) for path in folder.glob(f"{_STATISTICS}-*.safetensors")]
    total = sum(facts.st_size for _, facts in files)
    for path, facts in sorted(files, key=lambda file: file[1].st_mtime_ns):
        if total <= max(most, 0):
            return
        path.unlink(missing_ok=True)
        total -= facts.st_size
