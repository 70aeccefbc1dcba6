"""A network is written in a form that takes no more room than it has to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune import Options, prune
from onnx_subprune.factorisation import factorise
from onnx_subprune.options import Target

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,64] x) => (float[n,5] y) <int64 zero = {0}, int64 size = {64}, int64 one = {1}, float step = {0.1},
    int64[1] rows = {1}, int64[1] columns = {0}> {
    r = Range(zero, size, one)  f = Cast <to = 1> (r)  a = Unsqueeze(f, rows)  b = Unsqueeze(f, columns)
    p = Mul(a, b)  q = Mul(p, step)  table = Cos(q)
    [bins] c = MatMul(x, table)
    e = Mul(c, c)
    [fc1] h = MatMul(e, w1)
    i = Relu(h)
    [fc2] y = MatMul(i, w2)
}"""


@pytest.fixture
def spectrum() -> onnx.ModelProto:
    model = parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (64, 24), "w2": (24, 5)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return model


DATA = {"x": np.random.default_rng(1).standard_normal((256, 64)).astype(np.float32)}


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("only", ["fc1", "bins"])
def test_a_pruned_file_does_not_hold_a_table(spectrum: onnx.ModelProto, only: str, effort: str):
    options = Options.of_effort(effort, target=Target("units", 0.5), only=(only,))
    result = prune(spectrum, DATA, options)
    onnx.checker.check_model(result.model, full_check=True)
    operators = [node.op_type for node in result.model.graph.node]
    assert "Cos" in operators
    assert ("Gather" in operators) == (only == "bins")
    assert result.pruned.bytes < result.dense.bytes
    assert max(np.prod(tensor.dims) for tensor in result.model.graph.initializer) <= 64 * 24


def test_a_factorised_file_does_not_hold_a_table(spectrum: onnx.ModelProto):
    result = factorise(spectrum, DATA, Options(target=Target("units", 0.5), only=("fc1",)))
    assert "Cos" in [node.op_type for node in result.model.graph.node]
    assert result.pruned.bytes < result.dense.bytes


def test_a_sparse_weight_stays_sparse():
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n,64] x) => (float[n,5] y) { [fc1] h = MatMul(x, w1)  i = Relu(h)  [fc2] y = MatMul(i, w2) }""")
    rng = np.random.default_rng(0)
    dense = (rng.standard_normal((64, 24)) * (rng.random((64, 24)) < 0.1)).astype(np.float32)
    places = np.flatnonzero(dense)
    values = numpy_helper.from_array(dense.ravel()[places], "w1")
    model.graph.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(values, numpy_helper.from_array(places), [64, 24])
    )
    model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal((24, 5)).astype(np.float32), "w2"))
    result = prune(model, DATA, Options(target=Target("units", 0.5)))
    assert [list(tensor.dims) for tensor in result.model.graph.sparse_initializer] == [[64, 12]]
    assert result.pruned.bytes < result.dense.bytes
    assert result.fit is not None
    assert result.fit.left == {"fc1": "its weight is stored sparsely, which a fit would fill"}
