"""The low-rank baseline from model and data to a verified result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_subprune
from onnx_subprune import (
    Factorisation,
    InternalError,
    OptionError,
    Options,
    Target,
    TargetError,
    factorise,
)
from onnx_subprune.factorisation import low_rank_pipeline
from onnx_subprune.factorisation.low_rank_pipeline import calibrate_layers
from onnx_subprune.model import in_float32, open_session, run
from onnx_subprune.network.verify import relative_error
from onnx_subprune.subspace import Factors

ROWS = 400


def network(low: bool = False) -> onnx.ModelProto:
    """Return Conv(8) - Relu - Conv(12) - Relu - mean - Gemm(20) - Relu - MatMul(6); `low`: Gemm of rank 3."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3, 6, 6] x) => (float[N, 6] y) {
            [c1] a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
            b = Relu(a)
            [c2] c = Conv<pads = [1, 1, 1, 1]>(b, w2)
            d = Relu(c)
            e = GlobalAveragePool(d)
            f = Flatten(e)
            [g1] h = Gemm<transB = 1>(f, w3, b3)
            i = Relu(h)
            [m1] y = MatMul(i, w4)
        }
    """)
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (12, 8, 3, 3), "w3": (20, 12), "b3": (20,), "w4": (20, 6)}
    weights = {name: rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1) for name, shape in shapes.items()}
    if low:
        weights["w3"] = rng.standard_normal((20, 3)) @ rng.standard_normal((3, 12)) / 3
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((ROWS, 3, 6, 6)).astype(np.float32)}


@pytest.fixture
def to(data: dict[str, np.ndarray]) -> Callable[..., Factorisation]:
    """`to("macs=0.5", model, **options)`: the factorised network."""

    def result(target: str, model: onnx.ModelProto | None = None, **options: object) -> Factorisation:
        return factorise(model or network(), data, Options(Target.parse(target), threads=1, **options))  # type: ignore[arg-type]

    return result


@pytest.mark.parametrize("target", ["macs=0.8", "macs=0.5", "params=0.7", "units=0.5"])
def test_the_target_is_met_and_the_costs_are_those_predicted(target: str, to: Callable[..., Factorisation]) -> None:
    result = to(target)
    fraction = result.target.value
    onnx.checker.check_model(result.model, full_check=True)
    saved = sum(layer.macs - layer.macs_kept for layer in result.layers)
    assert result.dense.macs - result.pruned.macs == saved > 0
    share = {
        "macs": result.pruned.macs / result.dense.macs,
        "params": result.pruned.parameters / result.dense.parameters,
        "units": max(layer.macs_kept / layer.macs for layer in result.layers),
    }[result.target.kind]
    assert 0.6 * fraction < share <= fraction


def test_variance_is_what_every_layer_keeps(to: Callable[..., Factorisation]) -> None:
    result = to("variance=0.9")
    assert all(layer.share >= 0.9 for layer in result.layers)
    assert any(layer.rank is not None for layer in result.layers)


def test_all_of_the_cost_is_the_model_as_it_was(to: Callable[..., Factorisation]) -> None:
    result = to("macs=1.0")
    assert all(layer.rank is None for layer in result.layers)
    assert result.model.graph == network().graph


def test_a_layer_of_a_lower_rank_loses_nothing(to: Callable[..., Factorisation], data: dict[str, np.ndarray]) -> None:
    model = network(low=True)
    result = to("variance=0.999999", model, only=("g1",))
    (layer,) = result.layers
    assert (layer.name, layer.rank, layer.macs, layer.macs_kept) == ("g1", 3, 240, 3 * 32)
    expected, found = (run(open_session(one), data)["y"] for one in (model, result.model))
    assert relative_error(found, expected) < 1e-4


def test_more_is_kept_where_more_may_stay(to: Callable[..., Factorisation], data: dict[str, np.ndarray]) -> None:
    expected = run(open_session(network()), data)["y"]
    errors = []
    for target in ("macs=0.9", "macs=0.7", "macs=0.4"):
        found = run(open_session(to(target).model), data)["y"]
        errors.append(float(((found - expected) ** 2).sum() / ((expected - expected.mean(axis=0)) ** 2).sum()))
    assert errors == sorted(errors)
    assert errors[0] < 0.3


def test_ranks_are_multiples(to: Callable[..., Factorisation]) -> None:
    for target in ("macs=0.8", "units=0.8"):
        ranks = [layer.rank for layer in to(target, round_to=2).layers if layer.rank is not None]
        assert ranks
        assert all(rank % 2 == 0 for rank in ranks)


def test_globs_choose_layers_by_node_or_weight(to: Callable[..., Factorisation]) -> None:
    result = to("macs=0.9", ignore=("w2", "m*"))
    assert [layer.name for layer in result.layers] == ["c1", "g1"]
    assert result.left == {"c2": "--ignore or --only", "m1": "--ignore or --only"}
    with pytest.raises(OptionError, match="'absent' to match a layer"):
        to("macs=0.9", only=("absent",))


def test_statistics_serve_several_targets_and_no_other_model(
    to: Callable[..., Factorisation], data: dict[str, np.ndarray]
) -> None:
    statistics = calibrate_layers(network(), data, Options(threads=1))
    again = factorise(network(), None, Options(Target.parse("macs=0.6"), threads=1), statistics=statistics)
    assert again.model.graph == to("macs=0.6").model.graph
    with pytest.raises(OptionError, match="of this model"):
        factorise(network(low=True), None, statistics=statistics)
    of_prune = onnx_subprune.calibrate(network(), data, Options(threads=1))
    with pytest.raises(OptionError, match="calibrate for the factorisation"):
        factorise(network(), None, statistics=of_prune)
    with pytest.raises(OptionError, match="found neither"):
        factorise(network(), None)


@pytest.mark.parametrize("target", ["macs=0.01", "params=0.01"])
def test_a_target_out_of_reach_names_the_nearest(target: str, to: Callable[..., Factorisation]) -> None:
    with pytest.raises(TargetError, match="layers of rank 1 leave") as refusal:
        to(target)
    nearest = to(f"{target.partition('=')[0]}={np.ceil(refusal.value.nearest * 1e4) / 1e4}")
    assert all(layer.rank == 1 for layer in nearest.layers)


def test_targets_of_pruning_alone_are_refused(to: Callable[..., Factorisation]) -> None:
    with pytest.raises(OptionError, match="above 0 as the target of a factorisation"):
        to("units=0")


def test_a_network_without_layers_is_refused(data: dict[str, np.ndarray]) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 6, 6] x) => (float[N, 3, 6, 6] y) { y = Relu(x) }'
    )
    with pytest.raises(OptionError, match="at least one Conv, Gemm or MatMul"):
        factorise(model, data)


def test_few_rows_are_a_warning(data: dict[str, np.ndarray]) -> None:
    few = {"x": data["x"][:20]}
    warnings = factorise(network(), few, Options(Target.parse("units=0.5"), threads=1)).warnings
    assert any("'g1' was factorised on 20 rows for 12 features" in warning for warning in warnings)


def test_half_precision_stays(to: Callable[..., Factorisation], data: dict[str, np.ndarray]) -> None:
    half = onnx.ModelProto()
    half.CopyFrom(network())
    for tensor in half.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    narrow = {"x": data["x"].astype(np.float16)}
    result = factorise(half, narrow, Options(Target.parse("macs=0.6"), threads=1))
    assert {tensor.data_type for tensor in result.model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    wide = to("macs=0.6")
    assert [layer.rank for layer in result.layers] == [layer.rank for layer in wide.layers]
    found, expected = (run(open_session(one), data)["y"] for one in (in_float32(result.model), wide.model))
    assert relative_error(found, expected) < 1e-2


def test_the_stamp_names_the_method(to: Callable[..., Factorisation]) -> None:
    props = {prop.key: prop.value for prop in to("macs=0.6").model.metadata_props}
    assert props["pkg.onnx_subprune.target"] == "low-rank macs=0.6"


def test_a_layer_that_was_misread_is_no_model(
    to: Callable[..., Factorisation], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = low_rank_pipeline.subspace.factors

    def wrong(*arguments: object) -> Factors:
        found = real(*arguments)  # type: ignore[arg-type]
        return Factors(found.first, 2.0 * found.second, found.shift)

    monkeypatch.setattr(low_rank_pipeline.subspace, "factors", wrong)
    with pytest.raises(InternalError, match="at full rank was expected to equal"):
        to("macs=0.6")


def test_layers_are_chosen_by_the_module_they_come_from(data):
    model = network()
    for node in model.graph.node:
        if node.name in ("c1", "c2"):
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'features.{node.name}', 'conv2d']")
    result = factorise(model, data, Options(Target("units", 0.5), only=("features.*",), threads=1))
    assert [layer.name for layer in result.layers] == ["c1", "c2"]
    with pytest.raises(OptionError, match=r"'head' .*, or a module, .*; modules like features.c1, features.c2$"):
        factorise(model, data, Options(Target("units", 0.5), only=("head",), threads=1))
