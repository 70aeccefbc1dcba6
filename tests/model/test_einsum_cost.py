"""MACs of Einsum: those of the products that it is made of."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.model.einsum_cost import equation_macs
from onnx_subprune.network.analysis import analyse


@pytest.mark.parametrize(("equation", "shapes", "macs"), [
    ("ij,jk->ik", [(2, 3), (3, 5)], 2 * 3 * 5),
    ("ij,jk", [(2, 3), (3, 5)], 2 * 3 * 5),
    (" b i d , b j d -> b i j ", [(2, 3, 7), (2, 5, 7)], 2 * 3 * 5 * 7),
    ("...d,de->...e", [(2, 3, 4), (4, 5)], 2 * 3 * 4 * 5),
    ("...ij,...jk->...ik", [(6, 2, 3), (1, 3, 5)], 6 * 2 * 3 * 5),
    ("i,i->", [(9,), (9,)], 9),
    ("bi,bi->bi", [(2, 3), (2, 3)], 0),
    ("i,j->ij", [(2,), (3,)], 0),
    ("ij->ji", [(2, 3)], 0),
    ("ij->", [(2, 3)], 0),
    ("ii->i", [(3, 3)], 0),
    # k is summed before the product, l after the second one.
    ("ijk,jl->il", [(2, 3, 4), (3, 5)], 2 * 3 * 5),
    ("ij,jk,kl->il", [(2, 3), (3, 5), (5, 7)], 2 * 3 * 5 + 2 * 5 * 7),
    ("ij,ij,j->i", [(2, 3), (2, 3), (3,)], 2 * 3),
])  # fmt: skip
def test_an_equation_counts_its_products(equation: str, shapes: list[tuple[int, ...]], macs: int) -> None:
    assert equation_macs(equation, shapes) == macs


@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij->ij", "i,j", "...ijk,jk", ""])
def test_an_equation_that_does_not_fit_is_refused(equation: str) -> None:
    with pytest.raises(ModelError, match=f"a label for each axis of 2 operands, found '{re.escape(equation)}'"):
        equation_macs(equation, [(2, 3), (3,)])


def test_a_network_costs_what_it_costs_written_as_products() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    experts (float[N, 6] x, float[4, 6, 8] up, float[4, 8, 5] down) => (float[N, 4, 5] y) {
      a = Einsum <equation = "nd,edf->nef"> (x, up)
      b = Relu (a)
      y = Einsum <equation = "nef,efd->ned"> (b, down)
    }""")
    for value, shape in ((model.graph.input.pop(), (4, 8, 5)), (model.graph.input.pop(), (4, 6, 8))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), value.name))
    analysis = analyse(model, {"x": (3, 6)})
    assert "Einsum" not in {node.op_type for node in analysis.normalised.graph.node}
    assert analysis.cost.macs == 3 * 4 * (6 * 8 + 8 * 5)
    assert analysis.measure_cost(analysis.normalised).macs == analysis.cost.macs
