"""Broken and hostile models are refused in one line; valid ones are not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, parser

from onnx_subprune.errors import ModelError
from onnx_subprune.model import load_model
from onnx_subprune.model.expansion_checks import constants_error, functions_error
from onnx_subprune.model.graph_checks import free_names, names_error, order_error
from onnx_subprune.model.tensor_checks import sparse_error, tensor_error
from onnx_subprune.model.validation import text_error, validate

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
Change = Callable[[onnx.ModelProto], None]
BAD = Path(__file__).resolve().parents[3] / "shared" / "cases" / "bad"


def parsed(body: str) -> onnx.ModelProto:
    return parser.parse_model(f"{HEADER} g (float[1, 2, 4, 4] x) => (float[1, 4, 4, 4] y) {body}")


def refusal(model: onnx.ModelProto) -> str | None:
    return constants_error(model.graph.node, model.graph.initializer)


def convolution() -> onnx.ModelProto:
    model = parsed("<float[4, 2, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8}> { h = Conv(x, w) y = Relu(h) }")
    model.graph.node[0].name = "conv"
    return model


def test_a_valid_model_is_taken(model: onnx.ModelProto, rich_model: onnx.ModelProto) -> None:
    for valid in (convolution(), model, rich_model):
        validate(valid, "m.onnx")


def _attribute(name: str, value: object) -> Change:
    return lambda model: model.graph.node[0].attribute.append(helper.make_attribute(name, value))


def _reference(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="kernel_shape", ref_attr_name="k", type=onnx.AttributeProto.INTS)


def _renamed_output(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "h"


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def _foreign(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "my.domain"


def _unmade(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nothing"


def _too_few(model: onnx.ModelProto) -> None:
    del model.graph.node[0].input[1:]


def _nameless(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", input=["h"], output=[""])


def _no_outputs(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", input=["h"])


def _element_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 77


def _no_channels(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [0, 2, 1, 1], []))


def _loop_without_body(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Loop", input=["", ""], output=["l"])


def _two_values(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", 1))
    model.graph.node[0].attribute[-1].s = b"one"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_attribute("group", 0), "must have 1 group or more, found 0"),
        (_attribute("group", 3), "must divide 4 channels into equal groups, found 3"),
        (_attribute("kernel_shape", [5, 5]), r"kernel \[1, 1\] of its weight, found \[5, 5\]"),
        (_reference, "attribute 'kernel_shape' of node 'conv' .Conv. must have a value, found a reference to 'k'"),
        (_two_values, "attribute 'group' of node 'conv' .Conv. must have one value, found fields i, s"),
        (_renamed_output, "found 'h', made twice"),
        (_cycle, "must have no cycles, found node 'conv'"),
        (_foreign, "imported operator set, found domain 'my.domain'"),
        (_unmade, "reads 'nothing', which nothing makes"),
        (_too_few, "must have 2 or more inputs, found 1"),
        (_nameless, "must have an output with a name, found none"),
        (_no_outputs, "must have 1 outputs, found 0"),
        (_element_type, "'x' must have an element type of ONNX, found number 77"),
        (_no_channels, r"weight with values, found one of shape \[0, 2, 1, 1\]"),
        (_loop_without_body, "must have a graph 'body', found none"),
    ],
)
def test_what_is_broken_is_named(change: Change, message: str, tmp_path: Path) -> None:
    model = convolution()
    change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"m.onnx' is broken: .*{message}") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_names_are_utf8() -> None:
    data = convolution().SerializeToString().replace(b"conv", b"co\xff\xfe")
    assert text_error(convolution()) is None
    assert text_error(onnx.ModelProto.FromString(data)) == r"names must be UTF-8, found b'co\xff\xfe': export it anew"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (TensorProto(data_type=99, dims=[1]), "found number 99"),
        (TensorProto(data_type=1, dims=[-1]), "sizes of 0 or more"),
        (TensorProto(data_type=1, dims=[2], raw_data=bytes(9)), "must have 8 bytes of data, found 9"),
        (TensorProto(data_type=1, dims=[2**40, 3], raw_data=bytes(8)), "must have 13194139533312 bytes"),
        (TensorProto(data_type=7, dims=[2], int64_data=[1]), "must have 2 values of data, found 1"),
        (TensorProto(data_type=1, dims=[1], segment=TensorProto.Segment(begin=0, end=1)), "stored whole"),
    ],
)
def test_damaged_tensors(tensor: TensorProto, message: str) -> None:
    assert message in (tensor_error(tensor) or "")


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT4, TensorProto.STRING])
def test_typed_data_of_every_field_is_taken(dtype: int) -> None:
    values = ["a", "b", "c"] if dtype == TensorProto.STRING else [1, 0, 1]
    assert tensor_error(helper.make_tensor("t", dtype, [3], values)) is None


def test_sparse_tensors_stand_for_what_fits() -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 1])
    assert sparse_error(helper.make_sparse_tensor(values, indices, [2, 3])) is None
    assert "at most" in (sparse_error(helper.make_sparse_tensor(values, indices, [2**20, 2**20])) or "")
    del indices.dims[:]
    indices.dims.append(1)
    assert "one index for each" in (sparse_error(helper.make_sparse_tensor(values, indices, [2, 3])) or "")


def test_bodies_see_the_graphs_around_them() -> None:
    model = parser.parse_model(f"""{HEADER} g (bool c, float[1] x) => (float[1] y) {{
        y = If(c) <then_branch = t () => (float[1] a) {{ a = Relu(h) }}, else_branch = e () => (float[1] b) {{
            b = Neg(x) }}>
        h = Abs(x)
    }}""")
    validate(model, "m.onnx")  # the order of the nodes is not held against a model
    then = model.graph.node[0].attribute[0].g
    assert free_names(then) == {"h"}
    assert names_error(then, around={"h"}) is None
    assert "reads 'h'" in (names_error(then) or "")
    model.graph.node[1].input[0] = "y"
    assert "no cycles" in (order_error(model.graph) or "")
    del then.output[:]
    with pytest.raises(ModelError, match="no cycles"):
        validate(model, "m.onnx")
    model.graph.node[1].input[0] = "x"
    with pytest.raises(ModelError, match=r"both branches .* must have 1 outputs, found 0 and 1"):
        validate(model, "m.onnx")


def _doubling(depth: int, innermost: str = "") -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    first = helper.make_node(innermost or "Relu", ["a"], ["b"], domain="f" if innermost else "")
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [first], opsets)]
    for level in range(depth):
        calls = [helper.make_node(f"F{level}", [i], [o], domain="f") for i, o in (("a", "t"), ("t", "b"))]
        functions.append(helper.make_function("f", f"F{level + 1}", ["a"], ["b"], calls, opsets))
    model = parser.parse_model('<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[1] x) => (float[1] y) {}')
    model.graph.node.add(op_type=f"F{depth}", domain="f", input=["x"], output=["y"])
    model.functions.extend(functions)
    return model


def test_functions_that_double_are_counted_before_they_are_inlined() -> None:
    assert functions_error(_doubling(16)) is None
    assert "at most 100000 nodes" in (functions_error(_doubling(17)) or "")
    assert "at most 100000 nodes" in (functions_error(_doubling(60)) or "")
    assert "in a circle" in (functions_error(_doubling(2, innermost="F2")) or "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<int64[2] s = {1000000, 1000000}> { y = ConstantOfShape(s) }", "found 1000000000000"),
        ("<float[1] v = {1}, int64[2] s = {1000000, 1000000}> { y = Expand(v, s) }", "found 1000000000000"),
        ("<float[2] v = {1, 2}, int64[1] s = {1000000000}> { y = Tile(v, s) }", "found 2000000000"),
        ("<int64 a = {0}, int64 b = {1000000000}, int64 c = {1}> { y = Range(a, b, c) }", "found 1000000000"),
        ("<int64[1] s = {200000000}> { c = ConstantOfShape(s) y = Concat<axis = 0>(c, c) }", "found 400000000"),
        (
            "<int64[3] s = {1, 20000, 4}, float[1] p = {1}> { b = ConstantOfShape(s) y = NonMaxSuppression(b, p) }",
            "at most 10000 constant boxes, found 20000",
        ),
    ],
)
def test_constants_that_expand_are_refused(body: str, message: str) -> None:
    assert message in (refusal(parsed(body)) or "")


def test_constants_of_ordinary_size_are_taken() -> None:
    body = "<int64[2] s = {4096, 4096}> { c = ConstantOfShape(s) d = Concat<axis = 0>(c, c) y = Identity(d) }"
    assert refusal(parsed(body)) is None


def test_functions_are_looked_into() -> None:
    size = helper.make_node("Constant", [], ["s"], value_ints=[2**20, 2**20])
    for nodes, message in (
        ([size, helper.make_node("ConstantOfShape", ["s"], ["b"])], "values of constants"),
        ([helper.make_node("Conv", ["a"], ["b"])], "must have 2 or more inputs"),
    ):
        model = _doubling(1)
        del model.functions[0].node[:]
        model.functions[0].node.extend(nodes)
        with pytest.raises(ModelError, match=message):
            validate(model, "m.onnx")


@pytest.mark.parametrize("location", ["w\0.bin", "w" * 5000, "loop.bin"])
def test_places_that_cannot_be_opened(
    model: onnx.ModelProto, external: Callable[..., Path], tmp_path: Path, location: str
) -> None:
    path = external(model, tmp_path, location=location)
    (tmp_path / "loop.bin").symlink_to(tmp_path / "loop.bin")
    with pytest.raises(ModelError, match="must lie in a file that can be opened") as caught:
        load_model(path)
    assert "\0" not in str(caught.value)
    assert len(str(caught.value)) < 300


_CHILD = """
import resource, sys, time
from onnx_subprune.cli.exits import run
resource.setrlimit(resource.RLIMIT_AS, (8_000_000_000, 8_000_000_000))
for path in sys.argv[1:]:
    print("FILE", path, file=sys.stderr)
    start = time.process_time()
    code = run(["inspect", path])
    print("CODE", code, "FAST" if time.process_time() - start < 10 else "SLOW", file=sys.stderr)
print("MEMORY", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def test_every_hostile_file_is_refused_in_one_line() -> None:
    if not BAD.is_dir():
        pytest.skip(f"CASES MISSING: expected them at {BAD}; this test did not run")
    files = sorted(str(path) for path in BAD.glob("*.onnx"))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *files], capture_output=True, text=True, timeout=300, env=environment, check=True
    )
    *answers, memory = done.stderr.strip().split("\n")
    assert len(answers) == 3 * len(files) > 0
    for name, message, code in zip(answers[::3], answers[1::3], answers[2::3], strict=True):
        assert code == "CODE 1 FAST", (name, message)
        assert message.startswith("error: "), (name, message)
        assert "please report" not in message, name
    assert int(memory.split()[1]) < 2 * 2**20
