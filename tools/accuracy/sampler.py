"""Where the time of a run goes, by package: a thread looks at the stack of another now and then.

Nothing is patched, so packages may be rebuilt freely. Products of numpy and runs of ONNX Runtime let go of the
interpreter's lock, so the looks are even in time; the time of a library counts as that of the package that calls it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from time import perf_counter
from types import FrameType, TracebackType

__all__ = ["Sampler"]

PACKAGE, ELSEWHERE = "onnx_subprune", "elsewhere"
# Modules whose time is told apart from that of their package.
NAMED = {"onnx_subprune.model.session": "runs of the network"}


class Sampler:
    """Samples the thread that enters it.

    Args:
        interval: seconds between two looks.

    """

    def __init__(self, interval: float = 0.01) -> None:
        self._interval = interval
        self._looks: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), daemon=True)

    def __enter__(self) -> Sampler:
        self._start = perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._whole = perf_counter() - self._start

    @property
    def seconds(self) -> float:
        """The whole time."""
        return self._whole

    def packages(self) -> dict[str, float]:
        """Seconds by package, the largest first."""
        looks = sum(self._looks.values()) or 1
        return {package: self._whole * count / looks for package, count in self._looks.most_common()}

    def _watch(self, thread: int) -> None:
        while not self._stop.wait(self._interval):
            self._looks[package_of(sys._current_frames().get(thread))] += 1


def package_of(frame: FrameType | None) -> str:
    """The package of the innermost frame of the package."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith(f"{PACKAGE}."):
            return NAMED.get(name, name.split(".")[1])
        frame = frame.f_back
    return ELSEWHERE
