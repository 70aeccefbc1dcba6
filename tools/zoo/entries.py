"""The index of the zoo: what every entry is, where it comes from and on which inputs it runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Entry", "Input", "read_entries", "write_entries"]


@dataclass(frozen=True)
class Input:
    """An input of a network: a size or the name of a dynamic axis per axis; integers are drawn from 0 to high - 1."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    high: int = 2

    def at(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """Return the shape at given sizes of the dynamic axes."""
        return tuple(size if isinstance(size, int) else sizes[size] for size in self.shape)

    def draw(self, sizes: dict[str, int], generator: np.random.Generator) -> np.ndarray:
        """Return an input: standard normal values, integers below `high`; 0-d and bool included."""
        shape, dtype = self.at(sizes), np.dtype(self.dtype)
        if dtype.kind in "biu":
            return np.asarray(generator.integers(0, self.high, shape)).astype(dtype)
        return np.asarray(generator.standard_normal(shape)).astype(dtype)


@dataclass(frozen=True)
class Entry:
    """A skeleton and how to run it.

    Attributes:
        name: of the file `skeletons/NAME.onnx.xz`.
        architecture: the entries of one architecture differ in the exporter only.
        family: kind of network.
        source: package, version, class, exporter, opset.
        inputs: in the graph's order.
        sizes: two sets of sizes of the dynamic axes.

    """

    name: str
    architecture: str
    family: str
    source: dict[str, str]
    inputs: tuple[Input, ...]
    sizes: tuple[dict[str, int], dict[str, int]]

    def shapes(self, which: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all inputs at one of the two sets of sizes."""
        return {each.name: each.at(self.sizes[which]) for each in self.inputs}

    def feeds(self, which: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Return inputs at one of the two sets of sizes."""
        generator = np.random.default_rng(seed)
        return {each.name: each.draw(self.sizes[which], generator) for each in self.inputs}


def read_entries(path: Path) -> tuple[Entry, ...]:
    """Read the index, in order of names."""
    return tuple(_entry(fields) for fields in json.loads(path.read_text(encoding="utf-8")))


def write_entries(entries: Iterable[Entry], path: Path) -> None:
    """Write the index."""
    rows = [json.dumps(asdict(entry)) for entry in sorted(entries, key=lambda entry: entry.name)]
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def _entry(fields: dict[str, Any]) -> Entry:
    inputs = tuple(Input(**{**each, "shape": tuple(each["shape"])}) for each in fields["inputs"])
    first, second = fields["sizes"]
    return Entry(**{**fields, "inputs": inputs, "sizes": (first, second)})
