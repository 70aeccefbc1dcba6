"""`onnx-subprune bench`: how fast, side by side."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from onnx_subprune import evaluate, report
from onnx_subprune.cli.options import (
    InputShapes,
    Json,
    Models,
    Providers,
    Quiet,
    Seed,
    Threads,
    Verbose,
    names,
    shapes,
)
from onnx_subprune.cli.sizes import assumed, batched
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.model import input_specs, load_model

__all__ = ["bench"]


def bench(
    models: Models,
    *,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", metavar="N", help="Samples per run, on the dynamic first axis; repeatable.", show_default="1"
        ),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", metavar="N", help="Timed runs of every model.")] = 50,
    input_shapes: InputShapes = None,
    providers: Providers = None,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Time models on the same random inputs, taking turns; the speed-up is the median of paired ratios."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        given = dict(shapes(input_shapes))
        protos = [load_model(path, resident=False) for path in models]
        specs = input_specs(protos[0])
        screen.warn(assumed(specs, given))
        where, shown = names(providers), [str(path) for path in models]
        entries, tables = [], []
        wanted: list[int | None] = [*(batch or [])] or [None]
        for size in wanted:
            sizes = batched(specs, given, size)
            feeds = evaluate.random_feeds(specs, sizes, seed)
            found = evaluate.bench(protos, feeds, runs=runs, providers=where, threads=threads)
            title = ", ".join(f"{name} {list(shape)}" for name, shape in sizes.items())
            tables.append(report.latency_table(shown, found, title))
            measured = [{"model": name, **asdict(one)} for name, one in zip(shown, found, strict=True)]
            entries.append({"input_shapes": {k: list(v) for k, v in sizes.items()}, "models": measured})
        document = {"format": "onnx_subprune.bench/1", "runs": runs, "providers": list(where), "batches": entries}
        screen.show(document, *tables)
