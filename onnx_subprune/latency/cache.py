"""Measurements kept between runs, each under all that it depends on: this machine, this runtime, these providers.

A file of JSON for each thing that was measured, in the user's folder for caches: `$ONNX_SUBPRUNE_CACHE`, else what the
platform says (`$XDG_CACHE_HOME` or `~/.cache` on Linux) with `onnx-subprune` below. A file that cannot be read, or that
holds something else, is measured anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnx_subprune.model import atomic_write, check_regular

__all__ = ["Record", "cache_folder", "kept", "machine"]

_logger = logging.getLogger(__name__)

_FORMAT = "onnx_subprune.measured/1"
_VECTORS = ("avx", "amx", "sse4", "fma", "neon", "asimd", "sve")


def cache_folder() -> Path:
    """Return where measurements are kept."""
    given = os.environ.get("ONNX_SUBPRUNE_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "onnx-subprune"


def machine(providers: Sequence[str], threads: int | None) -> dict[str, Any]:
    """Return all that a measurement depends on except the model: hardware, runtime, providers, threads.

    Args:
        providers: names of ONNX Runtime's execution providers, in the order of preference.
        threads: of a session; None for ONNX Runtime's default.

    Returns:
        A part of a cache key, as plain data.

    """
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "onnxruntime": ort.__version__,
        "providers": list(providers),
        "threads": threads,
    }


@cache
def _processor() -> str:
    """Name the CPU and its vectors, and the GPUs that Linux knows of."""
    facts = dict(_facts(Path("/proc/cpuinfo")))
    flags = facts.get("flags", facts.get("Features", "")).split()
    vectors = [flag for flag in flags if flag.startswith(_VECTORS)]
    name = facts.get("model name") or platform.processor() or platform.machine()
    gpus = [dict(_facts(path)).get("Model", "") for path in Path("/proc/driver/nvidia/gpus").glob("*/information")]
    return " ".join([name, *sorted(vectors), *sorted(gpus)])


def _facts(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def kept(kind: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the keys and the data of all measurements of a kind that were made on this machine with this runtime.

    Args:
        kind: of the measurements, as in `Record`.

    Returns:
        Pairs of key and data, in the order of their file names. Measurements with other providers or threads are there
        too: the caller compares the keys.

    """
    here = machine((), None)
    measurements = []
    for path in sorted(cache_folder().glob(f"{kind}-*.json")):
        document = _document(path)
        key, data = document.get("key"), document.get("data")
        same = isinstance(key, dict) and all(key.get(name) == here[name] for name in ("processor", "onnxruntime"))
        if same and isinstance(key, dict) and isinstance(data, dict):
            measurements.append((key, data))
    return measurements


def _document(path: Path) -> dict[str, Any]:
    """Return the content of a file of the cache; nothing where it cannot be read."""
    try:
        check_regular(path)
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and document.get("format") == _FORMAT else {}


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(json.loads(json.dumps(data)), sort_keys=True).encode()).hexdigest()


class Record:
    """The measurements for a key, read from the cache and written to it.

    Args:
        kind: of the measurement; part of the file's name.
        key: all that it depends on.
        anew: forget what the cache holds.

    Attributes:
        data: the measurements; empty where there are none.
        warnings: what the user should know of the cache.

    """

    def __init__(self, kind: str, key: Mapping[str, Any], *, anew: bool = False) -> None:
        self._key = json.loads(json.dumps(key, sort_keys=True))
        digest = hashlib.sha256(json.dumps(self._key, sort_keys=True).encode()).hexdigest()[:20]
        self._path = cache_folder() / f"{kind}-{digest}.json"
        self.warnings: list[str] = []
        self.data: dict[str, Any] = {} if anew else self._read()

    def forget(self, why: str) -> None:
        """Take what the cache holds for damaged.

        Args:
            why: the fault that was found in the data, for the warning.

        """
        self.data = {}
        self.warnings.append(f"measured anew: expected measurements in '{self._path}', found {why}")

    def save(self) -> None:
        """Write the measurements; a cache that cannot be written is no error."""
        document = {"format": _FORMAT, "key": self._key, "data": self.data, "checksum": _checksum(self.data)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as temporary:
                temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            _logger.info("measurements are not kept: '%s': %s", self._path, error.strerror)

    def _read(self) -> dict[str, Any]:
        try:
            check_regular(self._path)
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self.forget(f"what cannot be read ({type(error).__name__})")
            return {}
        record = document if isinstance(document, dict) else {}
        known = record.get("format") == _FORMAT and record.get("key") == self._key
        if not known or not isinstance(record.get("data"), dict):
            self.forget("something else")
            return {}
        # Measurements of before lack it.
        if "checksum" in record and record["checksum"] != _checksum(record["data"]):
            self.forget("content that does not fit its checksum")
            return {}
        return dict(record["data"])
