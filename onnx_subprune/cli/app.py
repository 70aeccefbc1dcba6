"""The commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

import onnx_subprune
from onnx_subprune.cli.apply import apply
from onnx_subprune.cli.bench import bench
from onnx_subprune.cli.command_group import CommandGroup
from onnx_subprune.cli.demo import demo
from onnx_subprune.cli.doctor import doctor
from onnx_subprune.cli.eval import evaluate
from onnx_subprune.cli.factorise import factorise
from onnx_subprune.cli.inspect import inspect
from onnx_subprune.cli.prune import prune

__all__ = ["app"]


app = typer.Typer(
    name="onnx-subprune",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(inspect)
app.command()(prune)
app.command("eval")(evaluate)
app.command()(bench)
app.command()(apply)
app.command()(factorise)
app.command()(doctor)
app.command()(demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnx-subprune {onnx_subprune.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Make ONNX models smaller and faster by structured pruning with closed-form recovery: no training, no labels."""
