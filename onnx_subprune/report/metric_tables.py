"""Tables of what `eval` measures, a row for each model."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from onnx_subprune.evaluate import Fidelity, Perplexity, Top1
from onnx_subprune.evaluate.fidelity import FIGURES
from onnx_subprune.report.table import table

__all__ = ["accuracy_table", "fidelity_table", "perplexity_table"]


def accuracy_table(names: Sequence[str], accuracies: Sequence[Top1]) -> Table:
    """Return a table of the top-1 accuracy of every model, and of the difference to the first in percentage points.

    Args:
        names: of the models, a row each.
        accuracies: of the same models on the same samples.

    """
    first = accuracies[0].accuracy
    rows = [
        (name, f"{top1.accuracy:.2%}", f"{100 * (top1.accuracy - first):+.2f}", f"{top1.correct} / {top1.samples}")
        for name, top1 in zip(names, accuracies, strict=True)
    ]
    return table(("model", "top-1", "to the first", "correct"), rows, "lrrr")


def perplexity_table(names: Sequence[str], perplexities: Sequence[Perplexity]) -> Table:
    """Return a table of the perplexity of every model, and of the difference to the first.

    Args:
        names: of the models, a row each.
        perplexities: of the same models on the same tokens; `nll` is in nats for each token.

    """
    first = perplexities[0].perplexity
    rows = [
        (
            name,
            f"{measured.perplexity:.4g}",
            f"{measured.perplexity - first:+.4g}",
            f"{measured.nll:.4f}",
            str(measured.tokens),
        )
        for name, measured in zip(names, perplexities, strict=True)
    ]
    return table(("model", "perplexity", "to the first", "nats per token", "tokens"), rows, "lrrrr")


def fidelity_table(names: Sequence[str], fidelities: Sequence[Fidelity]) -> Table:
    """Return a table that compares every output of the models with the same output of the reference.

    Points inside the models have rows of their own; figures that no output has are left out.

    Args:
        names: of the models; each has as many rows as outputs.
        fidelities: of the same models to one reference.

    """
    figures = [figure for figure in FIGURES if figure.always or figure.is_in(fidelities)]
    rows = [
        (name, closeness.label(output), *(figure.cell(closeness) for figure in figures))
        for name, fidelity in zip(names, fidelities, strict=True)
        for output, closeness in fidelity.compared.items()
    ]
    return table(("model", "output", *(figure.head for figure in figures)), rows, "ll" + "r" * len(figures))
