"""Ctrl-C and other signals that end the process: at once, with one line, and with nothing left behind.

Python answers a signal between two steps of its own, with an exception. That comes late where ONNX Runtime works for
minutes or waits for ever, is lost in callbacks of libraries, and ends in a traceback where a library turns it into an
error of another kind. So here a thread waits for signals. It removes what is under way (`cleanup`), says one line and
ends the process, wherever the other threads are. This is no worse for outputs than a kill, which they survive: a file
takes its name when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from threading import Event, Thread

from onnx_subprune import cleanup

__all__ = ["INTERRUPTED", "Interrupted", "answer_signals"]

_INTACT = "nothing half-written was left under an output's name"
INTERRUPTED = f"interrupted; {_INTACT}"

_LINES = {"SIGINT": INTERRUPTED, "SIGTERM": f"terminated; {_INTACT}", "SIGHUP": f"hung up; {_INTACT}"}
_MESSAGES = {getattr(signal, name): line for name, line in _LINES.items() if hasattr(signal, name)}


class Interrupted(Exception):  # noqa: N818 - not an error: the user's wish
    """The user pressed Ctrl-C."""


def answer_signals() -> None:
    """End this process when SIGINT, SIGTERM or SIGHUP comes, with 128 and the signal's number as its exit code.

    A signal that whoever started the process wants ignored (nohup) stays ignored. Call it from the main thread.
    """
    answered = [number for number in _MESSAGES if signal.getsignal(number) is not signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def stop(number: int, _: object) -> None:
        """Hold the main thread where it is, so that it begins nothing new while the other one cleans up."""
        with contextlib.suppress(BlockingIOError):
            os.write(writing, bytes([number]))
        Event().wait()

    def answer() -> None:
        number = os.read(reading, 1)[0]
        # A script of the user may have taken a signal for itself since.
        while number not in answered or signal.getsignal(number) is not stop:
            number = os.read(reading, 1)[0]
        _end(number, stderr)

    # A closed stderr, or no thread to be had: then Python's own way is taken.
    with contextlib.suppress(OSError, RuntimeError):
        stderr = os.dup(2)  # its own, because what stands under 2 changes at times
        Thread(target=answer, name="signals", daemon=True).start()
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in answered:
            signal.signal(number, stop)
        _keep_from_children(answered)


def _end(number: int, stderr: int) -> None:
    cleanup.run_all()
    # A progress bar may stand there, and have hidden the cursor.
    clear = "\r\x1b[2K\x1b[?25h" if os.isatty(stderr) else ""
    with contextlib.suppress(OSError):
        os.write(stderr, f"{clear}{_MESSAGES[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def _keep_from_children(answered: Sequence[signal.Signals]) -> None:
    """Let the signals of a forked child be its own: the pipe is its parent's, too."""

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, answered)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, answered)

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        for number in answered:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        unblock()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=forget)
