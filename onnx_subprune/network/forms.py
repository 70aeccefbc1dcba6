"""Forms of files that are pruned only in part, or not at all: a line each, in the place of a reason for every node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from onnx_subprune.errors import ModelError
from onnx_subprune.model.protos import ONNX_DOMAINS, graphs
from onnx_subprune.structure import QUANTISED

__all__ = ["check_forms", "forms_of"]

_NAMED = 3
_LAID_OUT = ("com.microsoft.nchwc", "com.ms.internal.nhwc")


def forms_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return a line for every form that keeps layers from being pruned, and what to do instead.

    Args:
        model: as it was given; bodies and local functions are looked into.

    """
    operators = [("" if node.domain in ONNX_DOMAINS else node.domain, node.op_type) for node in _nodes(model)]
    quantised = Counter(operator for domain, operator in operators if (domain, operator) in QUANTISED)
    laid_out = Counter(operator for domain, operator in operators if domain in _LAID_OUT)
    lines = []
    if quantised:
        lines.append(
            f"{_counted(quantised)} quantised: what they touch stays as it is; prune the float model, then quantise"
        )
    if laid_out:
        lines.append(
            f"{_counted(laid_out)} laid out for one kind of processor, as ONNX Runtime saves at optimisation level "
            "'all': what they touch stays as it is; prune the model as it was exported, or save it at level 'extended'"
        )
    return tuple(lines)


def check_forms(forms: tuple[str, ...], *, prunable: bool) -> None:
    """Refuse a model in such a form of which nothing is left to prune.

    Args:
        forms: as `forms_of` returns them.
        prunable: whether any group can be pruned.

    Raises:
        ModelError: with the first of the lines.

    """
    if forms and not prunable:
        raise ModelError(f"expected layers that can be pruned, found none: {forms[0]}")


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _counted(operators: Counter[str]) -> str:
    """Return the number of nodes and their most frequent operators, and the verb.

    >>> _counted(Counter({"QuantizeLinear": 1})), _counted(Counter(a=1, b=2, c=3, d=4))
    ('1 node (1 QuantizeLinear) is', '10 nodes (4 d, 3 c, 2 b, ...) are')

    """
    total = operators.total()
    named = [f"{count} {operator}" for operator, count in operators.most_common(_NAMED)]
    others = [] if len(operators) <= _NAMED else ["..."]
    return f"{total} node{'s' * (total > 1)} ({', '.join([*named, *others])}) {'are' if total > 1 else 'is'}"
