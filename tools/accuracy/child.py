"""A rival's process: a line of JSON in, a line out."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

__all__ = ["Child"]


class Child:
    """Starts on entering, ends on leaving.

    Args:
        command: the interpreter and its arguments. PYTHONPATH is kept from it: it imports its own packages.
        seconds: limit for one answer.

    """

    def __init__(self, command: Sequence[str], seconds: int) -> None:
        self._command = command
        self._seconds = seconds

    def __enter__(self) -> Child:
        self._process = subprocess.Popen(
            list(self._command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            text=True,
        )
        return self

    def ask(self, request: Any) -> str:
        """Return what went wrong, or an empty line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return "the process died"
        ready, _, _ = select.select([self._process.stdout], [], [], self._seconds)
        answer = self._process.stdout.readline() if ready else ""
        if answer:
            return str(json.loads(answer))
        return "the process died" if ready else f"not done after {self._seconds} s"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
