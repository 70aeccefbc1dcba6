"""The whole way on the embedded network: targets, identity, determinism, replay, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, Statistics, open_data
from onnx_subprune.demo import Demo, load_demo
from onnx_subprune.errors import OptionError, PlanError, TargetError
from onnx_subprune.evaluate import top1
from onnx_subprune.model import input_specs, load_model, open_session, run
from onnx_subprune.network import normalise
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Result, analyse, apply, calibrate, prune
from onnx_subprune.recovery import exact as refit
from onnx_subprune.recovery import stages


@pytest.fixture(scope="module")
def demo() -> Demo:
    return load_demo()


@pytest.fixture(scope="module")
def dense(demo: Demo) -> onnx.ModelProto:
    return load_model(demo.model_path)


@pytest.fixture(scope="module")
def calib(demo: Demo) -> dict[str, np.ndarray]:
    return {name: values[:64] for name, values in demo.calibration.items()}


@pytest.fixture(scope="module")
def half(dense: onnx.ModelProto, demo: Demo) -> Result:
    return prune(dense, demo.calibration, Options.of_effort("fast", target=Target("macs", 0.5)))


def _outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(open_session(model), feeds)


def test_the_target_is_met_and_the_accuracy_held(dense: onnx.ModelProto, half: Result, demo: Demo) -> None:
    assert 0.47 < half.pruned.macs / half.dense.macs <= 0.5
    assert half.pruned.parameters < half.dense.parameters
    assert half.pruned.bytes < half.dense.bytes
    data = open_data({**demo.test, "labels": demo.labels}, input_specs(dense))
    recovered = top1(half.model, data).accuracy
    bare = top1(
        apply(replace(half.plan, options=replace(half.plan.options, recovery="none")), dense).model, data
    ).accuracy
    assert recovered > 0.85
    assert recovered > bare + 0.05


@pytest.mark.parametrize("kind", ["macs", "params", "units", "variance"])
def test_a_target_of_one_changes_nothing(dense: onnx.ModelProto, calib: dict[str, np.ndarray], kind: str) -> None:
    result = prune(dense, calib, Options(target=Target(kind, 1.0)))
    assert not result.plan.removes
    assert result.model.graph == dense.graph
    assert {p.key.rsplit(".", 1)[0] for p in result.model.metadata_props} == {"pkg.onnx_subprune"}


@pytest.mark.parametrize("target", ["params=0.6", "units=0.5", "variance=0.9"])
def test_other_targets_are_met(dense: onnx.ModelProto, calib: dict[str, np.ndarray], target: str) -> None:
    result = prune(dense, calib, Options(target=Target.parse(target)))
    if target.startswith("params"):
        assert 0.55 < result.pruned.parameters / result.dense.parameters <= 0.6
    elif target.startswith("units"):
        assert all(len(g.kept) == round(g.size / 2) for g in result.plan.groups)
    else:
        assert result.plan.removes


def test_the_prediction_of_the_structure_is_the_cost_of_the_model(dense: onnx.ModelProto, half: Result) -> None:
    structure = analyse(dense, {"image": (1, 1, 28, 28)}).structure
    counts = {atom: int(mask.sum()) for atom, mask in half.plan.keeps(structure).items()}
    assert structure.macs({}) == half.dense.macs
    assert structure.macs(counts) == half.pruned.macs
    assert structure.parameters(counts) == half.pruned.parameters


def test_the_same_seed_gives_the_same_bytes(dense: onnx.ModelProto, calib: dict[str, np.ndarray]) -> None:
    options = Options(target=Target("units", 0.5), select="random", seed=3)
    first, second = (prune(dense, calib, options).model.SerializeToString(deterministic=True) for _ in range(2))
    other = prune(dense, calib, replace(options, seed=4)).model.SerializeToString(deterministic=True)
    assert first == second
    assert first != other


def test_a_saved_plan_and_saved_statistics_replay_to_the_same_bytes(
    dense: onnx.ModelProto, half: Result, tmp_path: Path
) -> None:
    assert half.statistics is not None
    half.plan.save(tmp_path / "plan.json")
    half.statistics.save(tmp_path / "statistics.safetensors")
    plan = type(half.plan).load(tmp_path / "plan.json")
    again = apply(plan, dense, statistics=Statistics.load(tmp_path / "statistics.safetensors"))
    assert again.model.SerializeToString(deterministic=True) == half.model.SerializeToString(deterministic=True)


def test_calibrating_apart_gives_the_same_model(dense: onnx.ModelProto, half: Result, demo: Demo) -> None:
    statistics = calibrate(dense, demo.calibration)
    again = prune(dense, None, Options.of_effort("fast", target=Target("macs", 0.5)), statistics=statistics)
    assert again.model.SerializeToString(deterministic=True) == half.model.SerializeToString(deterministic=True)


def test_ten_targets_need_one_calibration(dense: onnx.ModelProto, half: Result) -> None:
    assert half.statistics is not None
    sizes = [
        prune(dense, None, Options.of_effort("fast", target=Target("macs", f)), statistics=half.statistics).pruned.macs
        for f in (0.9, 0.7, 0.3)
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_ignored_layers_stay_whole_and_only_limits_to_its_match(
    dense: onnx.ModelProto, calib: dict[str, np.ndarray]
) -> None:
    names = [group.name for group in analyse(dense).structure.prunable]
    ignored = prune(dense, calib, Options(target=Target("units", 0.5), ignore=(names[0],)))
    only = prune(dense, calib, Options(target=Target("units", 0.5), only=(names[0],)))
    assert [g.name for g in ignored.plan.groups if len(g.kept) == g.size] == [names[0]]
    assert [g.name for g in only.plan.groups if len(g.kept) < g.size] == [names[0]]


def test_widths_are_rounded(dense: onnx.ModelProto, calib: dict[str, np.ndarray]) -> None:
    result = prune(dense, calib, Options(target=Target("macs", 0.6), round_to=8))
    assert all(len(g.kept) % 8 == 0 or len(g.kept) == g.size for g in result.plan.groups)
    assert result.pruned.macs <= 0.6 * result.dense.macs


def test_a_pattern_that_matches_nothing_is_refused(dense: onnx.ModelProto, calib: dict[str, np.ndarray]) -> None:
    with pytest.raises(OptionError, match="expected 'nosuch' to match"):
        prune(dense, calib, Options(ignore=("nosuch",)))


def test_a_target_out_of_reach_names_the_nearest(dense: onnx.ModelProto, calib: dict[str, np.ndarray]) -> None:
    with pytest.raises(TargetError, match=r"ask for macs=0\.0\d+ or more") as caught:
        prune(dense, calib, Options(target=Target("macs", 1e-6)))
    nearest = float(str(caught.value).split("macs=")[-1].split()[0])
    assert prune(dense, calib, Options(target=Target("macs", nearest))).plan.removes


@pytest.fixture
def block() -> onnx.ModelProto:
    """Return a residual block whose inner channels are a group that can go, and whose stream cannot."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        block (float[N, 3, 6, 6] x) => (float[N, 4] y) {
            [stem] s = Conv(x, w0, b0)
            [r0] t = Relu(s)
            [inner] h = Conv<pads = [1, 1, 1, 1]>(t, w1, b1)
            [r1] r = Relu(h)
            [outer] u = Conv(r, w2, b2)
            [add] v = Add(t, u)
            [mean] p = GlobalAveragePool(v)
            [flat] f = Flatten(p)
            [head] y = Gemm(f, w3, b3)
        }"""
    )
    rng = np.random.default_rng(0)
    shapes = {"w0": (8, 3, 1, 1), "b0": (8,), "w1": (6, 8, 3, 3), "b1": (6,), "w2": (8, 6, 1, 1), "b2": (8,)}
    for name, shape in {**shapes, "w3": (8, 4), "b3": (4,)}.items():
        values = rng.standard_normal(shape).astype(np.float32) / 2
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)}


def test_no_units_are_no_branch(block: onnx.ModelProto, images: dict[str, np.ndarray]) -> None:
    result = prune(block, images, Options.of_effort("fast", target=Target("units", 0.0), only=("inner",)))
    assert [(g.name, len(g.kept)) for g in result.plan.groups] == [("stem", 8), ("inner", 0)]
    assert not result.warnings
    assert [n.op_type for n in result.model.graph.node] == [
        "Conv",
        "Relu",
        "Add",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    bare = apply(replace(result.plan, options=replace(result.plan.options, recovery="none")), block).model
    expected = _outputs(block, images)["y"]
    with_mean, without = (relative_error(_outputs(model, images)["y"], expected) for model in (result.model, bare))
    assert with_mean < without / 2, "the mean of the branch was expected in the bias"
    again = apply(result.plan, block, statistics=result.statistics)
    assert again.model == result.model


def test_a_group_that_is_needed_keeps_a_unit(block: onnx.ModelProto, images: dict[str, np.ndarray]) -> None:
    result = prune(block, images, Options(target=Target("units", 0.0)))
    assert [(g.name, len(g.kept)) for g in result.plan.groups] == [("stem", 1), ("inner", 0)]
    assert result.warnings[0].startswith("'stem' keeps a unit: nothing of graph output 'y'")
    assert not any("keeps a unit" in warning for warning in result.warnings[1:])


def test_a_plan_that_empties_what_is_needed_is_refused(block: onnx.ModelProto, images: dict[str, np.ndarray]) -> None:
    plan = prune(block, images, Options(target=Target("units", 0.0))).plan
    groups = tuple(replace(group, kept=()) for group in plan.groups)
    with pytest.raises(PlanError, match="nothing of graph output 'y' would depend on the inputs; keep a unit"):
        apply(replace(plan, groups=groups, options=replace(plan.options, recovery="none")), block)


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_below_the_smallest_widths_branches_go(
    block: onnx.ModelProto, images: dict[str, np.ndarray], kind: str
) -> None:
    smallest = prune(block, images, Options(target=Target("units", 0.001)))
    least = {"macs": smallest.pruned.macs, "params": smallest.pruned.parameters}[kind]
    dense = {"macs": smallest.dense.macs, "params": smallest.dense.parameters}[kind]
    result = prune(block, images, Options(target=Target(kind, 0.9 * least / dense)))
    reached = {"macs": result.pruned.macs, "params": result.pruned.parameters}[kind]
    assert reached <= 0.9 * least
    assert [len(group.kept) for group in result.plan.groups if group.name == "inner"] == [0]
    assert any(warning.startswith("removed as a whole") and "inner" in warning for warning in result.warnings)


def test_a_branch_that_gives_little_goes_before_channels_that_give_much(
    block: onnx.ModelProto, images: dict[str, np.ndarray]
) -> None:
    for tensor in block.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) / 100, "w2"))
    result = prune(block, images, Options(target=Target("macs", 0.15)))
    assert [(g.name, len(g.kept)) for g in result.plan.groups] == [("stem", 8), ("inner", 0)]
    assert result.warnings[0] == "removed as a whole for macs=0.15: inner"
    assert relative_error(_outputs(result.model, images)["y"], _outputs(block, images)["y"]) < 0.05


def test_a_plan_of_another_model_and_one_without_data_are_refused(dense: onnx.ModelProto, half: Result) -> None:
    with pytest.raises(PlanError, match="expected the model that the plan was made for"):
        apply(replace(half.plan, fingerprint="0" * 64), dense)
    with pytest.raises(PlanError, match="needs calibration data or statistics"):
        apply(half.plan, dense)
    exact = replace(half.plan, options=replace(half.plan.options, recovery="exact"))
    for given, found in ((None, "nothing"), (half.statistics, "statistics alone")):
        with pytest.raises(PlanError, match=f"expected calibration data, found {found}; give --calib$"):
            apply(exact, dense, statistics=given)


def test_statistics_of_another_model_are_refused(dense: onnx.ModelProto, half: Result) -> None:
    assert half.statistics is not None
    other = replace(half.statistics, fingerprint="0" * 64)
    with pytest.raises(OptionError, match="expected statistics of this model"):
        prune(dense, None, statistics=other)


def test_statistics_without_what_a_plan_needs_are_refused_in_the_words_of_the_command(
    dense: onnx.ModelProto, half: Result
) -> None:
    assert half.statistics is not None
    lacking = replace(half.statistics, grams=dict(list(half.statistics.grams.items())[1:]))
    with pytest.raises(OptionError, match="give those of the run that made the plan, or --calib"):
        apply(half.plan, dense, statistics=lacking)
    with pytest.raises(OptionError, match="with the same --prune-normalised as you prune with"):
        prune(dense, None, Options.of_effort("fast"), statistics=lacking)


def test_neither_data_nor_statistics_is_refused(dense: onnx.ModelProto) -> None:
    with pytest.raises(OptionError, match="found neither"):
        prune(dense, None)


def test_the_user_s_model_is_never_changed(demo: Demo, dense: onnx.ModelProto, half: Result) -> None:
    assert half.plan.removes
    assert load_model(demo.model_path) == dense


def test_normalising_changes_no_output(dense: onnx.ModelProto, calib: dict[str, np.ndarray]) -> None:
    normalised = analyse(dense).normalised
    for name, value in _outputs(dense, calib).items():
        assert relative_error(_outputs(normalised, calib)[name], value) < 1e-5
    assert not any(node.op_type == "BatchNormalization" for node in normalised.graph.node)


def test_the_embedded_network_passes_the_mask_oracle(dense: onnx.ModelProto, mask_oracle) -> None:
    assert mask_oracle(dense, {"image": (4, 1, 28, 28)}).structure.prunable


@pytest.mark.parametrize("allocation", ["cutoff", "loss"])
def test_a_target_is_shared_out_in_other_ways(dense: onnx.ModelProto, half: Result, allocation: str) -> None:
    options = Options.of_effort("fast", target=Target("macs", 0.5), allocation=allocation)
    result = prune(dense, None, options, statistics=half.statistics)
    assert 0.47 < result.pruned.macs / result.dense.macs <= 0.5
    shares, others = ([len(group.kept) / group.size for group in one.plan.groups] for one in (result, half))
    assert max(others) - min(others) < 0.2 < max(shares) - min(shares)


def test_the_best_trial_is_the_first_sweep(
    dense: onnx.ModelProto, demo: Demo, half: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []

    def counting(networks: refit.Networks, data: Dataset, settings: refit.Settings, *rest: Any) -> refit.Refit:
        sweeps.append(settings.seed)
        return refit.refit(networks, data, settings, *rest)

    monkeypatch.setattr(stages, "refit", counting)
    options = Options(Target("macs", 0.5), trials=2, sweeps=2, rows=4, probes=4)
    some = {name: values[:96] for name, values in demo.calibration.items()}
    result = prune(dense, some, options, statistics=half.statistics)
    # Two trials and the sweep after the better one.
    assert sweeps == [0, 0, 1]
    replayed = apply(result.plan, dense, some, options, statistics=half.statistics)
    assert replayed.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("options", [{"allocation": "measured"}, {"target": Target("drop", 0.5)}])
def test_however_many_networks_are_tried_the_structure_is_inferred_once(
    dense: onnx.ModelProto, demo: Demo, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    inferences: list[object] = []
    imports: list[object] = []
    infer, opened = normalise.infer, normalise.opened
    monkeypatch.setattr(normalise, "infer", lambda *given, **more: inferences.append(1) or infer(*given, **more))
    monkeypatch.setattr(normalise, "opened", lambda *given: imports.append(1) or opened(*given))
    calib = {name: values[:64] for name, values in demo.calibration.items()}
    prune(dense, calib, Options.of_effort("fast", threads=1, **options))
    # The model as it was given becomes a graph, and the normalised one.
    assert (len(inferences), len(imports)) == (1, 2)
