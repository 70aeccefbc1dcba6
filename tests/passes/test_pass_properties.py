"""Passes on random nodes: the same outputs in ONNX Runtime, and nothing left that the pass is there to take away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnx_subprune.model import to_graph, to_model
from onnx_subprune.passes import ExpandEinsum, FoldBatchNorm, FoldConstants, Pass, SkipConcat

quick = settings(max_examples=15, deadline=None, derandomize=True)
HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def _model(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEADER}\n{text}")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model)


def _after(model: onnx.ModelProto, *passes: Pass) -> onnx.ModelProto:
    source = onnx.ModelProto()
    source.CopyFrom(model)
    graph = to_graph(source)
    for step in passes:
        assert step(graph).refusals == ()
    after = to_model(graph, source)
    onnx.checker.check_model(after)
    return after


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def _drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@quick
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.lists(st.integers(-12, 11), min_size=1, max_size=4),
    st.booleans(),
)
def test_what_lies_in_one_part_is_taken_from_it(sizes: Sequence[int], positions: list[int], last: bool) -> None:
    """Positions of a Concat, from either end: the Concat is skipped just where all are of one part."""
    total = sum(sizes)
    positions = [position % (2 * total) - total for position in positions]
    axis = -1 if last else 0
    shapes = [(3, size) if last else (size, 3) for size in sizes]
    inputs = ", ".join(f"float[{shape[0]},{shape[1]}] x{i}" for i, shape in enumerate(shapes))
    names = ", ".join(f"x{i}" for i in range(len(sizes)))
    body = f"[c] k = Concat <axis={axis}> ({names})\n[g] y = Gather <axis={axis}> (k, i)"
    model = _model(f"g ({inputs}) => (float[a,b] y) {{ {body} }}", i=np.array(positions))
    after = _after(model, SkipConcat())
    owners = np.repeat(np.arange(len(sizes)), sizes)
    gathers = next(node for node in after.graph.node if node.op_type == "Gather")
    part = len({int(owners[position % total]) for position in positions}) == 1
    assert gathers.input[0].startswith("x") == part
    feeds = {f"x{i}": _drawn(*shape, seed=i) for i, shape in enumerate(shapes)}
    used = {name: feeds[name] for name in feeds if name in {value.name for value in after.graph.input}}
    np.testing.assert_array_equal(_run(after, used), _run(model, feeds))


@quick
@given(st.data())
def test_ranges_of_one_part_are_taken_from_it(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    total = sum(sizes)
    start, end = (data.draw(st.integers(-total, total)) for _ in range(2))
    taken = range(total)[start:end]
    assume(len(taken))
    names = ", ".join(f"x{i}" for i in range(len(sizes)))
    inputs = ", ".join(f"float[2,{size}] x{i}" for i, size in enumerate(sizes))
    model = _model(
        f"g ({inputs}) => (float[a,b] y) {{ [c] k = Concat <axis=1> ({names})\n[s] y = Slice (k, start, end, axis) }}",
        start=np.array([start]), end=np.array([end]), axis=np.array([1]),
    )  # fmt: skip
    after = _after(model, SkipConcat())
    owners = np.repeat(np.arange(len(sizes)), sizes)
    cut = next(node for node in after.graph.node if node.op_type == "Slice")
    assert cut.input[0].startswith("x") == (len(set(owners[list(taken)].tolist())) == 1)
    feeds = {f"x{i}": _drawn(2, size, seed=i) for i, size in enumerate(sizes)}
    np.testing.assert_array_equal(_run(after, feeds), _run(model, feeds))


@quick
@given(st.data())
def test_a_random_equation_is_written_out(data: st.DataObject) -> None:
    """Two operands of up to four labels each, and an output that holds any of them, in any order."""
    left = data.draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True))
    right = data.draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True))
    labels = list(dict.fromkeys([*left, *right]))
    output = data.draw(st.permutations(labels))[: data.draw(st.integers(1, len(labels)))]
    sizes = {label: 2 + i for i, label in enumerate("abcdef")}
    equation = f"{''.join(left)},{''.join(right)}->{''.join(output)}"
    operands = [np.asarray(_drawn(*(sizes[label] for label in term), seed=i)) for i, term in enumerate((left, right))]
    stored = data.draw(st.booleans())
    shapes = [",".join(str(sizes[label]) for label in term) for term in (left, right)]
    given_too = "" if stored else f", float[{shapes[1]}] z"
    model = _model(
        f'g (float[{shapes[0]}] x{given_too}) => (float[a0] y) {{ [e] y = Einsum <equation="{equation}"> (x, z) }}',
        **({"z": operands[1]} if stored else {}),
    )
    after = _after(model, ExpandEinsum())
    assert "Einsum" not in _operators(after)
    feeds = {"x": operands[0]} if stored else {"x": operands[0], "z": operands[1]}
    expected = np.einsum(equation, *(operand.astype(np.float64) for operand in operands))
    result = _run(after, feeds)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@quick
@given(st.sampled_from([1, 2, 3]), st.booleans(), st.integers(1, 2), st.integers(0, 3), st.sampled_from(["", "0.01"]))
def test_a_normalisation_of_any_convolution_is_folded(
    groups: int, bias: bool, stride: int, seed: int, epsilon: str
) -> None:
    attribute = f"<epsilon={epsilon}>" if epsilon else ""
    bias_values = {"b": _drawn(12, seed=9)} if bias else {}
    model = _model(
        f"""g (float[2,6,5,5] x) => (float[a,b0,c,d] y) {{
            [c] h = Conv <group={groups}, strides=[{stride},{stride}], pads=[1,0,1,0]> (x, w{", b" if bias else ""})
            [n] y = BatchNormalization {attribute} (h, s, t, m, v)
        }}""",
        w=_drawn(12, 6 // groups, 3, 2, seed=seed), s=_drawn(12, seed=seed + 1), t=_drawn(12, seed=seed + 2),
        m=_drawn(12, seed=seed + 3), v=0.1 * np.abs(_drawn(12, seed=seed + 4)), **bias_values,
    )  # fmt: skip
    after = _after(model, FoldBatchNorm())
    assert _operators(after) == ["Conv"]
    feeds = {"x": _drawn(2, 6, 5, 5, seed=seed)}
    expected = _run(model, feeds)
    np.testing.assert_allclose(_run(after, feeds), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


UNARY = ["Neg", "Abs", "Sqrt", "Exp", "Reciprocal"]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]


@quick
@given(st.lists(st.tuples(st.sampled_from(BINARY), st.sampled_from(UNARY)), min_size=1, max_size=4), st.booleans())
def test_arithmetic_on_constants_is_one_constant(steps: list[tuple[str, str]], scalar: bool) -> None:
    """A chain on stored values ends in one constant, which is what the chain gives in ONNX Runtime."""
    lines, last = [], "k"
    for number, (binary, unary) in enumerate(steps):
        lines.append(f"p{number} = {binary}({last}, j)\nq{number} = Abs(p{number})\nr{number} = {unary}(q{number})")
        last = f"r{number}"
    body = "\n".join(lines)
    shape = () if scalar else (4,)
    model = _model(
        f"g (float[3,4] x) => (float[a,b] y) {{ {body}\n[last] y = Add(x, {last}) }}",
        k=np.abs(_drawn(3, 4)) + 1, j=np.asarray(np.abs(_drawn(*shape)) + 2, np.float32),
    )  # fmt: skip
    feeds = {"x": _drawn(3, 4, seed=1)}
    expected = _run(model, feeds)
    assume(np.isfinite(expected).all())
    after = _after(model, FoldConstants())
    assert "Add" in _operators(after)
    assert len([name for node in after.graph.node if node.output[0] == "y" for name in node.input]) == 2
    stored = {tensor.name for tensor in after.graph.initializer}
    (final,) = (node for node in after.graph.node if node.output[0] == "y")
    assert final.input[1] in stored
    np.testing.assert_allclose(_run(after, feeds), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "step", [SkipConcat(), ExpandEinsum(), FoldBatchNorm(), FoldConstants()], ids=lambda p: type(p).__name__
)
def test_a_second_time_there_is_nothing_left_to_do(step: Pass) -> None:
    model = _model(
        """g (float[2,4] x, float[2,4] z) => (float[a,b] y) {
            [k] k = Concat <axis=0> (x, z)
            [g] g = Gather <axis=0> (k, i)
            [e] e = Einsum <equation="ij,jk->ik"> (g, w)
            [m] m = Gemm (e, v)
            [n] n = BatchNormalization (m, s, s, s, s)
            [c] c = Add(s, s)
            [a] y = Mul(n, c)
        }""",
        i=np.array([0, 1]), w=_drawn(4, 5), v=_drawn(5, 3), s=np.abs(_drawn(3)) + 1,
    )  # fmt: skip
    graph = to_graph(model)
    assert step(graph).modified
    assert not step(graph).modified
