"""What was measured, in a JSON file that is written after every figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accuracy.methods import METHODS
from accuracy.networks import NETWORKS, Budget

__all__ = ["DENSE", "Case", "Figure", "Figures", "case_of", "dense_case"]

DENSE = "dense"
_DIGITS = {"metric": 4, "macs": 5, "parameters": 5, "seconds": 1}


@dataclass(frozen=True)
class Case:
    """What a figure is a figure of.

    Attributes:
        network: key of `NETWORKS`.
        method: key of `METHODS`, or `DENSE`.
        settings: the method's.
        budget: name of a budget; empty for the dense network.
        samples: calibration samples; 0 for a method that takes none.
        seed: which subset of the calibration pool.
        test: test samples; 0 for all.

    """

    network: str
    method: str
    settings: str = ""
    budget: str = ""
    samples: int = 0
    seed: int = 0
    test: int = 0

    @property
    def key(self) -> str:
        """One line of text, which sorts by network, method and budget."""
        parts = (self.network, self.method, self.settings, self.budget)
        return " | ".join((*parts, f"samples {self.samples}", f"seed {self.seed}", f"test {self.test}"))


def case_of(network: str, method: str, budget: Budget, samples: int, seed: int = 0, test: int = 0) -> Case:
    """The case of a method of `METHODS` at a budget of a network; what looks at no data has no samples."""
    chosen = METHODS[method]
    count = (samples, seed) if chosen.calibrated else (0, 0)
    return Case(
        network, method, chosen.signature, f"{budget.name}: {budget.target}", *count, test or NETWORKS[network].test
    )


def dense_case(network: str, test: int = 0) -> Case:
    """The case of a dense network."""
    return Case(network, DENSE, test=test or NETWORKS[network].test)


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        metric: None where there is none, and `note` says why.
        macs: share of the dense network's.
        parameters: the same.
        seconds: of the pruning.
        note: what the reader should know.
        made: versions of the programs.

    """

    metric: float | None
    macs: float | None = None
    parameters: float | None = None
    seconds: float | None = None
    note: str = ""
    made: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Figures:
    """The figures of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def get(self, case: Case) -> Figure | None:
        """The figure, if it was measured."""
        return self._known.get(case.key)

    def measured(self, case: Case, make: Callable[[], Figure], *, again: bool = False) -> Figure:
        """The figure, measured now if it was not before."""
        if again or case.key not in self._known:
            self.put(case, make())
        return self._known[case.key]

    def put(self, case: Case, figure: Figure) -> None:
        """Keep a figure, beside those that another process may have added to the file in the meantime."""
        self._known = _read(self._path)
        self._known[case.key] = figure
        self._write()

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._known.values())

    def _write(self) -> None:
        rows = {key: _row(figure) for key, figure in self._known.items()}
        text = json.dumps(rows, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        half = self._path.with_name(f"{self._path.name}.part")
        half.write_text(text, encoding="utf-8")
        half.replace(self._path)


def _read(path: Path) -> dict[str, Figure]:
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: Figure(**value) for key, value in found.items()}


def _row(figure: Figure) -> dict[str, Any]:
    """What there is of a figure, to as many digits as mean anything."""
    said = {name: value for name, value in asdict(figure).items() if value not in (None, "", {})}
    rounded = {name: round(value, _DIGITS[name]) for name, value in said.items() if name in _DIGITS}
    return {"metric": None, **said, **rounded}
