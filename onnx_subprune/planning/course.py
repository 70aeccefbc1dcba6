"""The course of a run: what it was expected to take, and what it took, by phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx_subprune.planning.forecast import Forecast
from onnx_subprune.progress import Taken

__all__ = ["Course"]


@dataclass(frozen=True)
class Course:
    """A forecast beside the truth.

    Attributes:
        forecast: of the run; None where none was made.
        left_out: what a limit of time left out, a line each.
        taken: what every phase took, by its name.

    """

    forecast: Forecast | None = None
    left_out: tuple[str, ...] = ()
    taken: Mapping[str, Taken] = field(default_factory=dict)

    def document(self) -> dict[str, Any] | None:
        """Return both as plain data, in seconds and bytes; None where there was no forecast."""
        if self.forecast is None:
            return None
        expected = self.forecast.phases
        names = dict.fromkeys([*self.taken, *expected])
        phases = {
            name: {
                "expected_seconds": expected[name].seconds if name in expected else None,
                "taken_seconds": self.taken[name].seconds if name in self.taken else 0.0,
                "expected_bytes": expected[name].bytes if name in expected else None,
                "taken_bytes": self.taken[name].bytes if name in self.taken else 0,
            }
            for name in names
        }
        return {
            "expected_seconds": self.forecast.seconds,
            "taken_seconds": sum(phase.seconds for phase in self.taken.values()),
            "expected_bytes": self.forecast.bytes,
            "taken_bytes": max((phase.bytes for phase in self.taken.values()), default=0),
            "unforeseen": list(self.forecast.unforeseen),
            "left_out": list(self.left_out),
            "phases": phases,
        }
