"""A recovered network is held to the same cut without recovery: the better of the two is taken, and this is told."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest

from onnx_subprune.network.calibrated import Calibrated, output_distance
from onnx_subprune.network.inputs import prepare, pruning_statistics
from onnx_subprune.options import Options, RecoveryOptions, Target
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.recovery import OutputErrors, Recovered, better_than_none, recover, unmeasured_share

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,3] y) {
    [first] a = Gemm(x, w1, b1)
    b = Relu(a)
    [last] y = Gemm(b, w2)
}"""


def _network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(TEXT)
    for name, shape in {"w1": (6, 8), "b1": (8,), "w2": (8, 3)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype("f4"), name))
    return model


@dataclass(frozen=True)
class _Distance:
    """Knows the errors of networks in the order in which they are asked for."""

    errors: list[float]
    judged: int = 12
    holds_out: bool = True

    def __call__(self, model: onnx.ModelProto, samples: int | None = None) -> float:
        return self.errors.pop(0)


def _case(recovery: str, samples: int = 200, kept: tuple[int, ...] = (0, 1, 3, 4, 6)) -> tuple[Calibrated, Plan]:
    options = Options(recovery=recovery, threads=1, batch_size=20)
    x = np.random.default_rng(1).standard_normal((samples, 6)).astype("f4")
    analysis, dataset = prepare(_network(), {"x": x}, options)
    statistics = pruning_statistics(analysis, dataset, options)
    distance = output_distance(analysis, dataset, options)
    plan = Plan(analysis.fingerprint, "by hand", (PlannedGroup("first", 8, kept),), RecoveryOptions(recovery=recovery))
    return Calibrated(analysis, statistics, dataset, options, distance), plan


@pytest.mark.parametrize("recovery", ["channel", "exact"])
def test_a_recovery_that_helps_is_kept_and_both_errors_are_told(recovery: str) -> None:
    calibrated, plan = _case(recovery)
    network = recover(calibrated, plan)
    kept, errors = better_than_none(calibrated, plan, network)
    assert kept is network
    assert errors is not None
    assert 0 < errors.pruned < errors.unrecovered
    assert errors.held_out
    assert errors.samples == calibrated.distance.judged > 0  # type: ignore[union-attr]


def test_the_errors_are_those_of_the_outputs() -> None:
    calibrated, plan = _case("channel")
    network = recover(calibrated, plan)
    _, errors = better_than_none(calibrated, plan, network)
    assert errors is not None
    assert errors.pruned**2 == pytest.approx(calibrated.distance(network.model))  # type: ignore[misc]


def test_a_recovery_that_does_harm_is_left_out_with_a_warning() -> None:
    calibrated, plan = _case("channel")
    calibrated = replace(calibrated, distance=_Distance([0.04, 0.01]))  # type: ignore[arg-type]
    network = replace(recover(calibrated, plan), warnings=("a fit of few rows",))
    kept, errors = better_than_none(calibrated, plan, network)
    bare = recover(replace(calibrated, options=replace(calibrated.options, recovery="none")), plan)
    assert kept.model.SerializeToString() == bare.model.SerializeToString()
    assert kept.warnings == (
        "nothing was recovered: on 12 samples held out the outputs are off by 10% without recovery, and by 20% with "
        "it; use more samples, and look at whether they are like those that the network was trained on",
    )
    assert errors == OutputErrors(0.1, 0.1, 12, True)


def test_a_difference_that_is_noise_keeps_the_recovery() -> None:
    calibrated, plan = _case("channel")
    calibrated = replace(calibrated, distance=_Distance([0.01005, 0.01]))  # type: ignore[arg-type]
    network = recover(calibrated, plan)
    assert better_than_none(calibrated, plan, network)[0] is network


@pytest.mark.parametrize(
    ("recovery", "kept", "measured"),
    [("none", (0, 1), True), ("channel", tuple(range(8)), True), ("channel", (0,), False)],
)
def test_nothing_is_run_where_there_is_nothing_to_compare(recovery: str, kept: tuple[int, ...], measured: bool) -> None:
    calibrated, plan = _case(recovery, kept=kept)
    calibrated = replace(calibrated, distance=_Distance([]) if measured else None)  # type: ignore[arg-type]
    network = Recovered(_network(), {}, ())
    assert better_than_none(calibrated, plan, network) == (network, None)


@pytest.mark.parametrize(
    ("target", "allocation", "error", "warned"),
    [
        ("latency=0.5", "uniform", 0.63, True),
        ("latency=0.5", "measured", 0.63, False),
        ("latency=0.5", "uniform", 0.02, False),
        ("macs=0.5", "uniform", 0.63, False),
    ],
)
def test_much_that_is_lost_to_latency_without_measured_losses_is_told(
    target: str, allocation: str, error: float, warned: bool
) -> None:
    options = Options(Target.parse(target), allocation=allocation)
    lines = unmeasured_share(options, OutputErrors(error, 0.9, 64, True))
    assert bool(lines) == warned
    assert not warned or lines[0].startswith("the outputs are off by 63% on 64 samples: allocation 'uniform' shared")
    assert unmeasured_share(options, None) == []
