"""The command line: a file per subcommand, which parses, calls the API and prints."""

from onnx_subprune.cli.exits import main, run

__all__ = ["main", "run"]
