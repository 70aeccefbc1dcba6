"""The one way out: what happened becomes one line on stderr and an exit code.

| code | when                                                                 |
|------|----------------------------------------------------------------------|
| 0    | done                                                                 |
| 1    | the input is at fault, or the program is: `error: ...`               |
| 2    | the command line is not understood; typer says how                   |
| 3    | the target cannot be met: `error: ...` names the nearest that can be |
| 130  | interrupted                                                          |
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from onnx_subprune.cli.interrupt import Interrupted
from onnx_subprune.errors import SubpruneError, UserError

__all__ = ["main", "run"]

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


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
    except Interrupted:
        return _fail("interrupted; nothing half-written was left under an output's name", _EXIT_INTERRUPTED)
    except SubpruneError as error:
        return _fail(f"error: {error}", error.exit_code)
    except Exception as error:
        return _fail(f"internal error: {type(error).__name__}: {error}; run with -v for the traceback", 1)
    return 0


def _app() -> Any:
    """Import the commands, and with them ONNX Runtime, which is an extra of this package."""
    try:
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
    print(" ".join(message.split()), file=sys.stderr)
    return code
