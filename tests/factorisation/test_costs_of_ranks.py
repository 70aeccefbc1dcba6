"""What a layer costs at a rank, against the two products that stand in its place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.factorisation.ranks import RankedLayer
from onnx_subprune.model import measure_cost

FEW = settings(max_examples=20, deadline=None)
SIZES = st.integers(2, 12)


def product(*widths: int) -> onnx.ModelProto:
    """Return a chain of products x W1 W2 ... of these widths."""
    steps = [f"h{i + 1} = MatMul(h{i}, w{i})" for i in range(len(widths) - 1)]
    body = " ".join(steps).replace(f"h{len(steps)} =", "y =").replace("(h0", "(x")
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,{widths[0]}] x) => (float[N,{widths[-1]}] y) {{ {body} }}'
    )
    for number, shape in enumerate(pairwise(widths)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), f"w{number}"))
    return model


@FEW
@given(SIZES, SIZES, st.integers(1, 7), st.data())
def test_macs_and_parameters_are_those_of_the_two_products(
    features: int, outputs: int, positions: int, draw: st.DataObject
) -> None:
    rank = draw.draw(st.integers(1, min(features, outputs)))
    feed = {"x": (positions, features)}
    dense, pair = measure_cost(product(features, outputs), feed), measure_cost(product(features, rank, outputs), feed)
    layer = RankedLayer("w", outputs, features, dense.macs, rank, rank, 0.5)
    assert layer.macs_kept == pair.macs
    assert layer.parameters_saved(0) == dense.parameters - pair.parameters
    assert layer.parameters_saved(outputs) == dense.parameters - pair.parameters - outputs


@FEW
@given(SIZES, SIZES, st.integers(1, 7))
def test_a_layer_that_stays_costs_what_it_did(features: int, outputs: int, positions: int) -> None:
    layer = RankedLayer("w", outputs, features, positions * features * outputs, 3, None, 1.0)
    assert layer.macs_kept == positions * features * outputs
    assert layer.parameters_saved(5) == 0
