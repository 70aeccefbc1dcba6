from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.model import (
    InputSpec,
    concrete_shapes,
    input_specs,
    open_session,
    parse_input_shapes,
    run,
    save_model,
)
from onnx_subprune.model import protos as protos_module

MODEL = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3] x, int64[2] i) => (float[N, 3] y, float[M, 3] z) <float[3] w = {1, 2, 3}> {
        y = Mul(x, w)
        z = Gather(y, i)
    }
"""


@pytest.fixture
def model() -> onnx.ModelProto:
    return parser.parse_model(MODEL)


FEEDS = {"x": np.ones((4, 3), np.float32), "i": np.array([0, 3])}


def test_inputs_are_read_in_order_without_initializers(model: onnx.ModelProto) -> None:
    model.graph.input.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))
    assert input_specs(model) == (
        InputSpec("x", ("N", 3), np.dtype(np.float32)),
        InputSpec("i", (2,), np.dtype(np.int64)),
    )


def test_sizes_that_no_tensor_has_are_dynamic(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [-1, 0, None, "", 7])
    del model.graph.input[:]
    model.graph.input.append(value)
    assert input_specs(model) == (InputSpec("b", (None, None, None, None, 7), np.dtype(ml_dtypes.bfloat16)),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]),
            "'s' must be a tensor, found sequence_type",
        ),
        (helper.make_tensor_value_info("s", TensorProto.FLOAT, None), "'s' has no rank"),
        (helper.make_tensor_value_info("s", TensorProto.UNDEFINED, [1]), "'s' has no element type"),
        (onnx.ValueInfoProto(name="s"), "'s' must be a tensor, found untyped value"),
    ],
)
def test_inputs_that_cannot_be_fed_are_refused(
    model: onnx.ModelProto, value: onnx.ValueInfoProto, message: str
) -> None:
    model.graph.input.append(value)
    with pytest.raises(ModelError, match=message):
        input_specs(model)


@pytest.mark.parametrize("optimise", [True, False])
def test_a_session_runs_the_model(model: onnx.ModelProto, optimise: bool) -> None:
    session = open_session(model, ["cpu"], threads=1, optimise=optimise)
    assert session.get_providers() == ["CPUExecutionProvider"]
    values = run(session, FEEDS)
    assert list(values) == ["y", "z"]
    np.testing.assert_array_equal(values["z"], [[1, 2, 3], [1, 2, 3]])
    assert list(run(session, FEEDS, ["z"])) == ["z"]


def test_idle_threads_do_not_spin(model: onnx.ModelProto) -> None:
    options = open_session(model, threads=1).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 1


def test_a_session_opens_from_a_path(model: onnx.ModelProto, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.onnx")
    assert list(run(open_session(tmp_path / "m.onnx", ["CPUExecutionProvider"], threads=1), FEEDS)) == ["y", "z"]


def test_a_model_too_large_for_one_message_opens(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protos_module, "PROTOBUF_LIMIT", 3000)
    weight = onnx.numpy_helper.from_array(np.arange(3000, dtype=np.float32).reshape(1000, 3), "w")
    model.graph.initializer[0].CopyFrom(weight)
    feeds = {"x": np.ones((1, 3), np.float32), "i": np.array([1, 999])}
    np.testing.assert_array_equal(run(open_session(model, threads=1), feeds)["z"], [[3, 4, 5], [2997, 2998, 2999]])


def test_what_onnxruntime_refuses_is_an_error_of_one_line(model: onnx.ModelProto, tmp_path: Path) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"^ONNX Runtime \S+ refuses the model: .*NoSuchOperator") as caught:
        open_session(model)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="refuses the model"):
        open_session(tmp_path / "missing.onnx")


@pytest.mark.parametrize("providers", [["tpu"], ["cpu", "NoSuchExecutionProvider"]])
def test_an_unknown_provider_is_refused(model: onnx.ModelProto, providers: list[str]) -> None:
    with pytest.raises(OptionError, match=r"is not in this onnxruntime; it has: .*CPUExecutionProvider"):
        open_session(model, providers)


@pytest.mark.parametrize("providers", ["cpu", []])
def test_providers_are_a_list(model: onnx.ModelProto, providers: list[str]) -> None:
    with pytest.raises(OptionError, match="must be a non-empty list of names"):
        open_session(model, providers)


def test_a_provider_that_does_not_load_is_an_error_without_noise(
    model: onnx.ModelProto, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime as ort  # noqa: PLC0415

    if "CUDAExecutionProvider" not in ort.get_available_providers() or Path("/dev/nvidia0").exists():
        pytest.skip("needs an onnxruntime-gpu on a machine without GPU")
    with pytest.raises(OptionError, match="'CUDAExecutionProvider' did not load on this machine"):
        open_session(model, ["cuda", "cpu"])
    assert capfd.readouterr() == ("", "")


def test_threads_are_at_least_one(model: onnx.ModelProto) -> None:
    with pytest.raises(OptionError, match="threads must be at least 1, found 0"):
        open_session(model, threads=0)


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": FEEDS["x"]},
        {**FEEDS, "x": np.ones((4, 2), np.float32)},
        {**FEEDS, "x": np.ones((4, 3))},
        {**FEEDS, "other": FEEDS["x"]},
    ],
)
def test_feeds_that_do_not_fit_are_data_errors(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="do not fit the model: ") as caught:
        run(open_session(model, threads=1), feeds)
    assert "\n" not in str(caught.value)


def test_a_run_that_fails_inside_is_a_model_error() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2] x, int64[1] s) => (float[k] y) { y = Reshape(x, s) }
    """)
    with pytest.raises(ModelError, match="failed while running the model"):
        run(open_session(model, threads=1), {"x": np.ones(2, np.float32), "s": np.array([5])})


SPECS = (InputSpec("x", ("N", 3, None), np.dtype(np.float32)), InputSpec("i", (2,), np.dtype(np.int64)))


def test_dynamic_dims_take_the_default_or_the_override() -> None:
    assert concrete_shapes(SPECS, None) == {"x": (1, 3, 1), "i": (2,)}
    assert concrete_shapes(SPECS, {"x": [8, 3, 5]}, default=2) == {"x": (8, 3, 5), "i": (2,)}
    assert concrete_shapes(SPECS, {}, default=4)["x"] == (4, 3, 4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"nope": (1,)}, "given for 'nope', but the model's inputs are: x, i"),
        ({"x": (1, 3)}, r"'x' has shape N,3,\? in the model, found 1,3"),
        ({"x": (1, 4, 1)}, r"'x' has shape N,3,\? in the model, found 1,4,1"),
    ],
)
def test_overrides_must_fit(overrides: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        concrete_shapes(SPECS, overrides)


def test_input_shapes_are_parsed() -> None:
    assert parse_input_shapes(["x:1,3,224,224", "serving:0:7", "s:"]) == {
        "x": (1, 3, 224, 224), "serving:0": (7,), "s": ()
    }  # fmt: skip


@pytest.mark.parametrize("text", ["x", "x:1,,2", "x:a", "x:0", "x:-1,3", ":1,2", "x:1,3,", "x:1x3"])
def test_malformed_input_shapes_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="must look like x:1,3,224,224, found"):
        parse_input_shapes([text])


def test_an_input_shape_given_twice_is_refused() -> None:
    with pytest.raises(OptionError, match="given twice for 'x'"):
        parse_input_shapes(["x:1", "x:2"])


def test_an_output_in_front_of_a_sum_that_is_fused_is_not_lost() -> None:
    """ONNX Runtime 1.31 fuses the Add with the second Conv and then looks for the first one's output in vain."""
    shapes = {"w": (14, 14, 3, 3), "b": (14,), "s": (14, 1, 1), "v": (16, 14, 3, 3), "c": (16,), "u": (16, 14, 1, 1)}
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,14,16,16] x, float[1,14,16,16] z) => (float[1,16,8,8] y) {
            p = PRelu(z, s)
            a = Conv<pads = [1,1,1,1]>(x, w, b)
            q = PRelu(a, s)
            h = Conv<pads = [1,1,1,1], strides = [2,2]>(q, v, c)
            k = Conv<strides = [2,2]>(p, u, c)
            y = Add(h, k)
        }""")
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="h"))
    feeds = {name: rng.standard_normal((1, 14, 16, 16)).astype(np.float32) for name in ("x", "z")}
    fused, plain = (run(open_session(model, threads=1, optimise=optimise), feeds)["h"] for optimise in (True, False))
    np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-4)


def test_a_number_of_numpy_is_an_input_too() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (bool c, float[2] x) => (float[2] y) { y = Where(c, x, x) }""")
    assert run(open_session(model), {"c": np.bool_(True), "x": np.ones(2, np.float32)})["y"].tolist() == [1.0, 1.0]
