"""What networks take, predicted and measured, on a machine that the tests make up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune import budget
from onnx_subprune.demo import load_demo
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.latency import FAMILIES, Decision, Effort, Times
from onnx_subprune.model import load_model, measure_cost
from onnx_subprune.network.analysis import analyse
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Analysis, apply, prune
from onnx_subprune.planning import latency, width_multiples
from onnx_subprune.planning.latency import LatencyMeter, timed_shapes
from onnx_subprune.planning.width_multiples import WidthMultiples

CHEAP = {"threads": 1}


class Pretended:
    """A machine on which a network takes a constant and its MACs; it counts the networks that it was asked of."""

    def __init__(self, constant: float = 0.2, slower: float = 1.0) -> None:
        self.asked = 0
        self._constant, self._slower = constant, slower

    def __call__(self, models: Sequence[onnx.ModelProto], *_: Any, **__: Any) -> Times:
        self.asked += len(models) - 1
        macs = np.array([measure_cost(model).macs for model in models], float)
        ratios = self._constant + (1 - self._constant) * macs / macs[0]
        ratios[1:] *= self._slower
        return Times(np.tile(ratios, (8, 1)), np.ones((8, len(models)), bool))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pretended]:
    def use(**options: float) -> Pretended:
        machine = Pretended(**options)
        monkeypatch.setattr(latency, "times", machine)
        decisions = {family: Decision(8, sure=True) for family in FAMILIES}
        monkeypatch.setattr(width_multiples, "measured_multiples", lambda *_, **__: decisions)
        return machine

    return use


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(load_model(load_demo().model_path), {"image": (1, 1, 28, 28)})


@pytest.fixture(scope="module")
def curves(analysis: Analysis) -> list[budget.Curve]:
    share = {g.size: np.linspace(0.0, 1.0, g.size + 1) for g in analysis.structure.prunable}
    return [budget.Curve(g.name, g.size, np.arange(g.size), share[g.size]) for g in analysis.structure.prunable]


def timed(target: str, **options: Any) -> Any:
    demo = load_demo()
    chosen = Options.of_effort("fast", target=Target.parse(target), **{**CHEAP, **options})
    return prune(demo.model_path, demo.calibration, chosen)


def test_a_prediction_is_what_was_measured(
    pretended: Callable[..., Pretended], analysis: Analysis, curves: list[budget.Curve]
) -> None:
    machine = pretended()
    meter = LatencyMeter(analysis, curves, Options(threads=1), WidthMultiples({}))
    for share in (0.9, 0.6, 0.35):
        counts = {curve.group: round(share * curve.size) for curve in curves}
        assert meter.predicted(counts) == pytest.approx(meter.measure(counts), rel=0.05)
    assert meter.predicted({}) == pytest.approx(1.0, abs=0.02)
    asked = machine.asked
    meter.measure(counts)
    assert machine.asked == asked


def test_a_prediction_does_not_fall_when_a_width_grows(
    pretended: Callable[..., Pretended], analysis: Analysis, curves: list[budget.Curve]
) -> None:
    pretended()
    predicted = LatencyMeter(analysis, curves, Options(threads=1), WidthMultiples({})).predicted
    counts = {curve.group: curve.size // 2 for curve in curves}
    for curve in curves:
        costs = [predicted({**counts, curve.group: count}) for count in range(1, curve.size + 1)]
        assert (np.diff(costs) >= 0).all()


def test_a_branch_that_is_gone_takes_no_time(
    pretended: Callable[..., Pretended], analysis: Analysis, curves: list[budget.Curve]
) -> None:
    pretended()
    predicted = LatencyMeter(analysis, curves, Options(threads=1), WidthMultiples({})).predicted
    for group in analysis.structure.removable:
        assert predicted({group.name: 0}) < predicted({group.name: 1}) + 1e-12


def test_the_target_is_met_and_the_second_run_decides_alike_without_learning(
    pretended: Callable[..., Pretended], measurements: Path
) -> None:
    machine = pretended()
    first = timed("latency=0.6")
    assert 0.6 * 0.97 <= first.latency.measured <= 0.6
    assert first.latency.predicted == pytest.approx(first.latency.measured, rel=0.05)
    assert first.latency.multiples["conv"] == 8
    assert all(len(group.kept) in (group.size, *range(8, group.size, 8)) for group in first.plan.groups)
    asked = machine.asked
    second = timed("latency=0.6")
    assert second.plan == first.plan
    assert second.model == first.model
    # What is given back is measured in any case.
    assert machine.asked == asked + 1
    assert len(list(measurements.glob("*.json"))) == 2
    timed("latency=0.6", remeasure=True)
    assert machine.asked > asked + 10


def test_a_model_that_the_machine_does_not_follow_is_corrected(
    pretended: Callable[..., Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended(constant=0.05)
    timed("latency=0.8")
    monkeypatch.setattr(latency, "times", Pretended(constant=0.3))
    found = timed("latency=0.6")
    assert found.latency.predicted < 0.55
    assert found.latency.measured <= 0.6 * 1.03


class Slower(Pretended):
    """A machine on which the first finished networks take longer than those that were cut to choose widths by."""

    def __init__(self, finished: float, often: int = 100) -> None:
        super().__init__()
        self._finished, self._left = finished, often

    def __call__(self, models: Sequence[onnx.ModelProto], *rest: Any, effort: Effort, **more: Any) -> Times:
        found = super().__call__(models, *rest, **more)
        if effort.sittings > 3 and self._left:
            self._left -= 1
            found.seconds[:, 1:] *= self._finished
        return found


def test_a_finished_network_that_misses_the_target_counts_and_widths_are_chosen_again(
    pretended: Callable[..., Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended()
    before = timed("latency=0.6")
    monkeypatch.setattr(latency, "times", Slower(1.08, often=1))
    found = timed("latency=0.6", remeasure=True)
    assert found.pruned.macs < before.pruned.macs
    assert found.latency.measured <= 0.6 * 1.03


def test_a_target_that_no_choice_of_widths_meets_is_refused(
    pretended: Callable[..., Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended()
    monkeypatch.setattr(latency, "times", Slower(1.08))
    with pytest.raises(TargetError, match=r"takes 0\.6\d+ of the time .* ask for latency=0\.6\d+ or more") as refused:
        timed("latency=0.6", remeasure=True)
    assert 0.6 * 1.03 < refused.value.nearest < 0.65


def test_a_finished_network_that_is_slower_than_the_dense_one_is_refused(
    pretended: Callable[..., Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended()
    monkeypatch.setattr(latency, "times", Slower(2.5))
    with pytest.raises(TargetError, match=r"the finished network takes|ask for latency="):
        timed("latency=0.6")


@pytest.mark.parametrize("recovery", ["channel", "none"])
def test_what_is_timed_has_the_nodes_of_what_is_given_back(
    pretended: Callable[..., Pretended], monkeypatch: pytest.MonkeyPatch, recovery: str
) -> None:
    """Recovery gives a MatMul without a bias an Add."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,8] x) => (float[N,4] y) '
        "{ h = MatMul(x, w) z = Relu(h) y = MatMul(z, v) }"
    )
    for name, shape in {"w": (8, 16), "v": (16, 4)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    seen: list[tuple[int, list[str]]] = []

    class Noting(Pretended):
        def __call__(self, models: Sequence[onnx.ModelProto], *rest: Any, **more: Any) -> Times:
            seen.extend((one.graph.initializer[0].dims[1], [n.op_type for n in one.graph.node]) for one in models[1:])
            return super().__call__(models, *rest, **more)

    pretended()
    monkeypatch.setattr(latency, "times", Noting())
    data = {"x": rng.standard_normal((64, 8)).astype(np.float32)}
    options = Options.of_effort("fast", target=Target.parse("latency=0.7"), recovery=recovery, threads=1)
    found = prune(model, data, options)
    given = [node.op_type for node in found.model.graph.node]
    assert given == ["MatMul", "Relu", "MatMul"] + (["Add"] if recovery == "channel" else [])
    cut = [nodes for units, nodes in seen if units < 16]
    assert len(cut) > 3
    assert all(nodes == given for nodes in cut)


def test_out_of_reach_is_refused_with_the_nearest(pretended: Callable[..., Pretended]) -> None:
    pretended(constant=0.7)
    with pytest.raises(TargetError, match=r"ask for latency=0\.\d+ or more") as refused:
        timed("latency=0.5")
    assert refused.value.nearest > 0.69
    nearest = timed(f"latency={refused.value.nearest}")
    assert nearest.latency.measured <= 1.03 * refused.value.nearest


def test_what_is_slower_than_the_dense_network_is_refused(pretended: Callable[..., Pretended]) -> None:
    pretended(constant=0.9, slower=1.3)
    with pytest.raises(TargetError):
        timed("latency=0.95")


def test_the_whole_network_is_a_target_too_and_nothing_is_measured(pretended: Callable[..., Pretended]) -> None:
    machine = pretended()
    found = timed("latency=1")
    assert not found.plan.removes
    assert found.latency is None
    assert machine.asked == 0


def test_a_plan_is_replayed_without_measuring(pretended: Callable[..., Pretended]) -> None:
    machine = pretended()
    first, demo = timed("latency=0.7"), load_demo()
    asked = machine.asked
    again = apply(first.plan, demo.model_path, demo.calibration, Options(threads=1))
    assert again.model == first.model
    assert machine.asked == asked


def test_measured_allocation_and_trials_meet_the_target(pretended: Callable[..., Pretended]) -> None:
    pretended()
    found = timed("latency=0.6", allocation="measured", trials=3, samples=64)
    assert 0.55 <= found.latency.measured <= 0.6 * 1.03


def test_the_smallest_network_within_a_drop_may_be_the_fastest(pretended: Callable[..., Pretended]) -> None:
    pretended()
    found = timed("drop=0.1", cost="latency", samples=128)
    assert found.drop is not None
    assert (found.drop.cost, found.plan.target.partition("=")[0]) == ("latency", "latency")
    assert found.drop.fall <= 0.1
    target = Target.parse(found.plan.target).value
    assert target < 0.9
    assert found.latency.measured <= target * 1.03
    assert not [line for line in found.warnings if "noisy" in line]


def test_damaged_measurements_are_told_of_and_made_anew(
    pretended: Callable[..., Pretended], measurements: Path
) -> None:
    machine = pretended()
    first = timed("latency=0.6")
    for path in measurements.glob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace("0.", "-0.").replace("8", '"x"'), encoding="utf-8")
    asked = machine.asked
    second = timed("latency=0.6")
    assert second.plan == first.plan
    assert machine.asked > asked + 10
    assert sum("measured anew" in line for line in second.warnings) == 2


def test_round_to_auto_takes_multiples_for_any_target(pretended: Callable[..., Pretended]) -> None:
    machine = pretended()
    found = timed("macs=0.5", round_to="auto")
    assert all(len(group.kept) in (group.size, *range(8, group.size, 8)) for group in found.plan.groups)
    assert found.pruned.macs <= 0.5 * found.dense.macs
    assert found.latency is None
    assert machine.asked == 0


def test_a_batch_that_the_model_does_not_have_is_refused(analysis: Analysis) -> None:
    assert timed_shapes(analysis, None) == {"image": (1, 1, 28, 28)}
    assert timed_shapes(analysis, 16) == {"image": (16, 1, 28, 28)}
    fixed = onnx.ModelProto()
    fixed.CopyFrom(analysis.model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(OptionError, match="dynamic first axis to measure batches of 16, found 1"):
        timed_shapes(replace(analysis, model=fixed), 16)


def test_every_long_step_says_how_much_of_it_is_done(pretended: Callable[..., Pretended]) -> None:
    pretended()
    told: dict[str, list[tuple[int, int | None]]] = {}
    demo = load_demo()
    options = Options.of_effort("fast", target=Target.parse("latency=0.6"), threads=1)
    prune(
        demo.model_path,
        demo.calibration,
        options,
        progress=lambda name, done, total: told.setdefault(name, []).append((done, total)),
    )
    assert told["measuring candidates"][0] == (0, 8)
    assert told["measuring latencies"][-1][0] == told["measuring latencies"][-1][1]
    for steps in (told["measuring candidates"], told["measuring latencies"]):
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
