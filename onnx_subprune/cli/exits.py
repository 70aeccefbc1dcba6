"""The one way out: what happened becomes one line on stderr and an exit code.

| code | when                                                                 |
|------|----------------------------------------------------------------------|
| 0    | done                                                                 |
| 1    | the input is at fault, or the program is: `error: ...`               |
| 2    | the command line is not understood; typer says how                   |
| 3    | the target cannot be met: `error: ...` names the nearest that can be |
| 129  | hung up (SIGHUP)                                                     |
| 130  | interrupted (SIGINT, Ctrl-C)                                         |
| 141  | nobody reads what is printed, as in `| head -1`; nothing is said     |
| 143  | terminated (SIGTERM)                                                 |

Nothing large is imported here: signals are answered before that begins.
"""

from __future__ import annotations

import contextlib
import sys

from onnx_subprune.cli.interrupt import INTERRUPTED, Interrupted, answer_signals
from onnx_subprune.cli.streams import flushed, open_streams
from onnx_subprune.errors import SubpruneError, UserError
from onnx_subprune.formatting import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["main", "run"]

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process."""
    open_streams()
    answer_signals()
    sys.exit(flushed(run(sys.argv[1:])))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the words after the program's name.

    Returns:
        A code of the table at the head of this module.

    """
    try:
        _app()(list(arguments), prog_name="onnx-subprune", obj=["onnx-subprune", *arguments])
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except (Interrupted, KeyboardInterrupt):
        return _fail(INTERRUPTED, _EXIT_INTERRUPTED)
    except SubpruneError as error:
        return _fail(f"error: {error}", error.exit_code)
    except MemoryError as error:
        return _fail(
            f"error: expected enough memory, found too little ({error}); use fewer samples, or smaller sizes", 1
        )
    except Exception as error:
        return _fail(f"internal error: {type(error).__name__}: {error}; run with -v for the traceback", 1)
    return 0


def _app() -> Any:
    """Import the commands, and with them ONNX Runtime, which is an extra of this package."""
    try:
        from onnx_subprune.noise import hushed  # noqa: PLC0415

        with hushed():  # ONNX Runtime warns of devices that it cannot look at
            from onnx_subprune.cli.app import app  # noqa: PLC0415
    except (ImportError, AttributeError) as error:
        if "onnxruntime" not in str(error):
            raise
        raise UserError(
            f"expected a working ONNX Runtime, found none ({error}); "
            "run: pip install --force-reinstall 'onnx-subprune[cpu]' (or [gpu], not both)"
        ) from error
    return app


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(printable(" ".join(message.split())), file=sys.stderr)
    return code
