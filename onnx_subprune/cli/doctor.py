"""`onnx-subprune doctor`: whether the environment can be used, and what it offers."""

from __future__ import annotations

from dataclasses import asdict

from onnx_subprune import report
from onnx_subprune.cli.parameters import Json, Quiet, Verbose
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.errors import UserError
from onnx_subprune.planning.width_multiples import known_multiples

__all__ = ["doctor"]


def doctor(*, json: Json = False, verbose: Verbose = 0, quiet: Quiet = False) -> None:
    """Check the environment: versions, execution providers that really load, clashes; exit code 1 if unusable."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        environment = report.examine()
        multiples = known_multiples()
        document = {"format": "onnx_subprune.doctor/1", **asdict(environment)}
        document |= {"multiples": multiples, "problems": environment.problems}
        screen.show(document, report.environment_table(environment, multiples))
        if environment.problems:
            raise UserError(environment.problems[0])
