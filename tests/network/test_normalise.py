"""Fewer spellings of the same function, and no quantised one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import concrete_shapes, input_specs, open_session, run
from onnx_subprune.network.normalise import infer_structure, normalise
from onnx_subprune.network.verify import relative_error

RNG = np.random.default_rng(2)


def built(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    for name, shape in weights.items():
        value = np.abs(RNG.standard_normal(shape)).astype(np.float32) + 0.1
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def same(model: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    shapes = concrete_shapes(input_specs(model))
    feeds = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    expected, actual = (run(open_session(proto), feeds) for proto in (model, other))
    return all(relative_error(actual[name], value) < 1e-5 for name, value in expected.items())


@pytest.mark.parametrize(
    ("text", "weights", "operators"),
    [
        (
            "[c] h = Conv(x, w) [n] y = BatchNormalization(h, s, b, m, v)",
            {"w": (4, 3, 1, 1), "s": (4,), "b": (4,), "m": (4,), "v": (4,)},
            ["Conv"],
        ),
        ('y = Einsum <equation = "nchw,cd->ndhw"> (x, w)', {"w": (3, 2)}, ["Transpose", "MatMul", "Transpose"]),
    ],
)
def test_other_spellings_compute_the_same(text: str, weights: dict[str, tuple[int, ...]], operators: list[str]) -> None:
    model = built(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[2,3,4,4] x) => (float[a,b,c,d] y) {{ {text} }}', **weights
    )
    before = model.SerializeToString(deterministic=True)
    result = normalise(model, {"x": (2, 3, 4, 4)})
    normalised = result.model
    assert result.refusals == ()
    assert model.SerializeToString(deterministic=True) == before
    assert same(model, normalised)
    assert [node.op_type for node in normalised.graph.node] == operators


def test_axes_of_normalisations_are_pruned_where_that_is_asked_for() -> None:
    model = built(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,6] x) => (float[2,3] y) '
        "{ [a] h = MatMul(x, w) n = LayerNormalization(h, s) [b] y = MatMul(n, v) }",
        w=(6, 8), s=(8,), v=(8, 3),
    )  # fmt: skip
    shapes = {"x": (2, 6)}
    normalised = normalise(model, shapes).model
    assert not infer_structure(normalised, shapes).prunable
    assert [group.name for group in infer_structure(normalised, shapes, prune_normalised=True).prunable] == ["a"]
