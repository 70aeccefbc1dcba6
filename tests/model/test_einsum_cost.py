"""Einsum counts every combination of its labels once: against a count by ones, where its output sums over all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_subprune.model import measure_cost, open_session, run


def build(equation: str, *ranks: int) -> onnx.ModelProto:
    names = [chr(ord("a") + place) for place in range(len(ranks))]
    sizes = [",".join(f"{name}{axis}" for axis in range(rank)) for name, rank in zip(names, ranks, strict=True)]
    given = ", ".join(f"float[{size}] {name}" for name, size in zip(names, sizes, strict=True))
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({given}) => (float y) '
        f'{{ e = Einsum <equation = "{equation}"> ({", ".join(names)}) y = ReduceSum <keepdims = 0> (e) }}'
    )


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...ij,jk->...ik", [(2, 3, 4), (4, 5)]),
        ("ij,jk,kl", [(2, 3), (3, 4), (4, 5)]),
    ],
)
def test_macs_are_the_number_of_products(equation, shapes):
    feeds = {chr(ord("a") + place): np.ones(shape, np.float32) for place, shape in enumerate(shapes)}
    model = build(equation, *map(len, shapes))
    expected = round(float(run(open_session(model), feeds)["y"]))
    assert measure_cost(model, {name: value.shape for name, value in feeds.items()}).macs == expected


def test_one_operand_is_only_moved():
    assert measure_cost(build("ij->ji", 2), {"a": (3, 4)}).macs == 0
