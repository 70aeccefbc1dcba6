"""From a plan to a network: nothing, the channels, or all layers fitted; what the user is told; and going on later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.model import open_session, run
from onnx_subprune.network.calibrated import Calibrated, output_distance
from onnx_subprune.network.inputs import prepare, pruning_statistics
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import Options, RecoveryOptions
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.recovery.stages import recover, resume

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,3] y) {
    [first] a = Gemm(x, w1, b1)
    b = Relu(a)
    [second] c = Gemm(b, w2)
    d = Relu(c)
    [last] y = Gemm(d, w3)
}"""


def _drawn(count: int, seed: int) -> np.ndarray:
    """Samples whose entries have a lot in common: what goes can be told from what stays."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, 3)) @ np.random.default_rng(5).standard_normal((3, 6))
    return (mixed + 0.1 * rng.standard_normal((count, 6))).astype(np.float32)


SAMPLES = _drawn(400, 1)


def _network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(TEXT)
    for name, shape in {"w1": (6, 8), "b1": (8,), "w2": (8, 5), "w3": (5, 3)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


@pytest.fixture
def begun() -> Callable[..., tuple[Calibrated, Plan]]:
    """`begun(recovery, sweeps=1)`: a calibrated network, and a plan that keeps five of eight and four of five units."""

    def begin(recovery: str, sweeps: int = 1, *, measured: bool = True) -> tuple[Calibrated, Plan]:
        options = Options(recovery=recovery, sweeps=sweeps, threads=1, batch_size=20)  # type: ignore[arg-type]
        analysis, dataset = prepare(_network(), {"x": SAMPLES}, options)
        statistics = pruning_statistics(analysis, dataset, options)
        distance = output_distance(analysis, dataset, options) if measured else None
        groups = (PlannedGroup("first", 8, (0, 1, 3, 4, 6)), PlannedGroup("second", 5, (0, 1, 3, 4)))
        plan = Plan(analysis.fingerprint, "by hand", groups, RecoveryOptions(recovery=recovery))  # type: ignore[arg-type]
        return Calibrated(analysis, statistics, dataset, options, distance), plan

    return begin


def _error(model: onnx.ModelProto) -> float:
    x = _drawn(100, 9)
    expected, pruned = (run(open_session(each, threads=1), {"x": x})["y"] for each in (_network(), model))
    return float(np.linalg.norm(pruned - expected) / np.linalg.norm(expected))


def test_every_stage_is_nearer_to_the_dense_network(begun) -> None:
    errors = [_error(recover(*begun(recovery)).model) for recovery in ("none", "channel", "exact")]
    assert errors[0] > errors[1] > errors[2] > 0


def test_all_stages_have_the_same_shapes(begun) -> None:
    for recovery in ("none", "channel", "exact"):
        model = recover(*begun(recovery)).model
        shapes = {tuple(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 2}
        assert shapes == {(6, 5), (5, 4), (4, 3)}


def test_what_is_told_of_each_stage(begun) -> None:
    none, channel, exact = (recover(*begun(recovery)) for recovery in ("none", "channel", "exact"))
    assert (none.errors, none.fit, channel.fit) == ({}, None, None)
    assert set(channel.errors) == {"second", "last"}
    assert all(0 < error < 1 for error in channel.errors.values())
    assert exact.fit is not None
    assert {layer.name for layer in exact.fit.layers} == {"first", "second", "last"}
    # Of layers that read removed units the error is that of the last fit.
    after = {layer.name: layer.after for layer in exact.fit.layers}
    assert exact.errors == {"second": after["second"], "last": after["last"]}


def test_a_plan_that_removes_nothing_is_the_same_network(begun) -> None:
    calibrated, plan = begun("channel")
    groups = tuple(replace(group, kept=tuple(range(group.size))) for group in plan.groups)
    recovered = recover(calibrated, replace(plan, groups=groups))
    x = SAMPLES[:10]
    expected, result = (run(open_session(each, threads=1), {"x": x})["y"] for each in (_network(), recovered.model))
    assert relative_error(result, expected) < 1e-5


def test_without_statistics_nothing_is_recovered(begun) -> None:
    calibrated, plan = begun("channel")
    bare = recover(replace(calibrated, statistics=None), plan)
    assert bare.errors == {}
    assert bare.model.graph.SerializeToString() == recover(*begun("none")).model.graph.SerializeToString()


def test_exact_recovery_needs_samples(begun) -> None:
    calibrated, plan = begun("exact")
    with pytest.raises(OptionError, match="expected calibration data, found statistics alone"):
        recover(replace(calibrated, dataset=None), plan)


def test_without_a_distance_fits_are_trusted(begun) -> None:
    measured, trusted = recover(*begun("exact")), recover(*begun("exact", measured=False))
    assert measured.model.graph.SerializeToString() == trusted.model.graph.SerializeToString()
    assert measured.warnings == trusted.warnings


def test_sweeps_may_be_made_later(begun) -> None:
    """One sweep first and the others afterwards is the same as all at once."""
    calibrated, plan = begun("exact", sweeps=3)
    at_once = recover(calibrated, plan)
    first = recover(replace(calibrated, options=replace(calibrated.options, sweeps=1)), plan)
    later = resume(first, calibrated, plan)
    assert later.model.graph.SerializeToString() == at_once.model.graph.SerializeToString()
    assert later.errors == at_once.errors


def test_without_samples_there_are_no_more_sweeps(begun) -> None:
    calibrated, plan = begun("exact", sweeps=3)
    first = recover(replace(calibrated, options=replace(calibrated.options, sweeps=1)), plan)
    assert resume(first, replace(calibrated, dataset=None), plan) is first
    assert resume(first, replace(calibrated, distance=None), plan) is first


def test_a_network_that_was_kept_by_channel_has_no_more_sweeps(begun) -> None:
    calibrated, plan = begun("channel", sweeps=3)
    by_channel = recover(calibrated, plan)
    assert resume(by_channel, calibrated, plan) is by_channel
