"""Deep networks of Conv and BatchNormalization in half precision: their folded weights are rounded once."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune import Options, Target, prune
from onnx_subprune.errors import InternalError
from onnx_subprune.factorisation import factorise
from onnx_subprune.model import in_float32, rounded_once_more
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.inputs import prepare, pruning_statistics
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import TOLERANCE, check_normalised, check_structure, disagreement, storage_rounding_of

oracle = import_module("onnx_subprune.network.verify")
PROBE = {"x": np.random.default_rng(5).standard_normal((4, 4, 6, 6)).astype(np.float32)}


def _deep(depth: int = 40, dtype: type = np.float16) -> onnx.ModelProto:
    """Residual blocks of Conv, BatchNormalization and Relu; weights of a type of two bytes."""
    rng = np.random.default_rng(2)
    to = 10 if dtype is np.float16 else 16
    lines, weights, last = [f"a0 = Cast<to={to}>(x)"], {}, "a0"
    for i in range(depth):
        lines += [
            f"[c{i}] c{i} = Conv<pads=[1,1,1,1]>({last}, w{i})",
            f"[n{i}] b{i} = BatchNormalization(c{i}, s{i}, t{i}, m{i}, v{i})",
            f"r{i} = Relu(b{i})",
        ]
        weights[f"w{i}"] = rng.standard_normal((4, 4, 3, 3)) / 4
        weights |= {f"{name}{i}": rng.standard_normal(4) / 4 for name in "tm"}
        weights |= {f"s{i}": rng.uniform(0.5, 1.5, 4), f"v{i}": rng.uniform(0.5, 1.5, 4)}
        last = f"r{i}"
        if i % 2:
            lines.append(f"h{i} = Add(r{i}, {'a0' if i < 2 else f'h{i - 2}'})")
            last = f"h{i}"
    lines.append(f"y = Cast<to=1>({last})")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>\n'
        f"g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ {chr(10).join(lines)} }}"
    )
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), name))
    return model


def _scaled(analysis: Analysis, factor: float) -> Analysis:
    """Return the analysis with one folded weight off by a factor."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(analysis.normalised)
    weight = next(tensor for tensor in wrong.graph.initializer if tensor.name == "w3")
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), weight.name))
    return replace(analysis, normalised=wrong)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_folded_weights_may_differ_by_their_rounding_and_by_no_more(dtype: type) -> None:
    analysis = analyse(_deep(dtype=dtype))
    assert "BatchNormalization" not in {node.op_type for node in analysis.normalised.graph.node}
    error = disagreement(analysis.normalised, analysis.model, PROBE)
    assert 1e-4 < error < 1.5 * storage_rounding_of(analysis.model, PROBE)
    # The shrunk and the masked network are stored alike: they are held to each other as closely as ever.
    assert check_normalised(analysis, PROBE).tolerance == TOLERANCE
    factor = 1.1 if dtype is np.float16 else 2.0
    with pytest.raises(InternalError, match="spellings unified was expected"):
        check_normalised(_scaled(analysis, factor), PROBE)


def test_the_weights_move_by_half_a_unit_in_the_last_place() -> None:
    model = _deep(depth=2)
    single, moved = ({t.name: numpy_helper.to_array(t) for t in twin(model).graph.initializer}
                     for twin in (in_float32, rounded_once_more))  # fmt: skip
    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor)
        unit = np.spacing(np.abs(half)).astype(np.float32)
        steps = (moved[tensor.name] - single[tensor.name]) / unit
        assert 0 < np.abs(steps).max() <= 1.0
    everything = np.concatenate([(moved[name] / single[name] - 1).ravel() for name in single])
    assert np.sqrt(np.mean(everything**2)) == pytest.approx(2.0**-11 / np.sqrt(2), rel=0.1)
    assert abs(everything.mean()) < 2.0**-13, "as many up as down"


def test_float32_is_held_as_before() -> None:
    assert storage_rounding_of(in_float32(_deep(depth=2)), PROBE) == 0.0


@pytest.fixture(scope="session")
def case(data_dir: Path) -> tuple[str, str]:
    folder = data_dir.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"CASES MISSING: expected them at {folder}; these tests did not run")
    return str(folder / "fp16_bn.onnx"), str(folder / "fp16_bn.npz")


@pytest.mark.parametrize("effort", ["balanced", "fast"])
def test_a_deep_network_is_pruned(case: tuple[str, str], effort: str) -> None:
    chosen = {"samples": 8, "rows": 4, "probes": 2, "levels": (0.75,)} if effort == "balanced" else {"samples": 8}
    result = prune(*case, Options.of_effort(effort, target=Target("macs", 0.7), threads=1, **chosen))
    assert result.pruned.macs < 0.72 * result.dense.macs


def test_a_wrong_plan_shows(case: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    analysis, dataset = prepare(*case, Options(samples=4, threads=1))
    # One group: where two networks differ, the groups are searched for the guilty one.
    only = (analysis.structure.prunable[0].name,)
    options = Options(Target("units", 0.7), recovery="none", threads=1, samples=4, only=only)
    plan = prune(*case, options, statistics=pruning_statistics(analysis, dataset, options)).plan
    probe = {"x": np.load(case[1])["x"][:2]}
    tolerance = check_normalised(analysis, probe).tolerance
    check_structure(analysis, plan, probe, tolerance)
    group = next(group for group in plan.groups if len(group.kept) < group.size)
    gone = next(unit for unit in range(group.size) if unit not in set(group.kept))
    other = replace(group, kept=tuple(sorted((*group.kept[1:], gone))))
    wrong = replace(plan, groups=tuple(other if each is group else each for each in plan.groups))

    def misread(of: Analysis, asked: object) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        del asked
        return references(of, wrong)[0], references(of, plan)[1]

    monkeypatch.setattr(oracle, "references", misread)
    with pytest.raises(InternalError, match="its structure was misread"):
        check_structure(analysis, plan, probe, tolerance)


def test_layers_of_full_rank_are_held_to_the_dense_ones_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two factors in half precision round more than one layer does, which is no misread structure."""
    pipeline = import_module("onnx_subprune.factorisation.low_rank_pipeline")
    seen: list[float] = []

    def agree(analysis: Analysis, networks: Any, probe: Any, tolerance: float) -> bool:
        seen.append(disagreement(*networks(), probe))
        return seen[-1] <= tolerance

    monkeypatch.setattr(pipeline, "agree", agree)
    options = Options(Target("macs", 0.8), threads=1)
    result = pipeline.factorise(_deep(depth=10), PROBE, options)
    assert result.pruned.macs <= 0.8 * result.dense.macs
    assert seen[0] < 1e-5
    assert {t.data_type for t in result.model.graph.initializer} == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow
def test_a_deep_network_is_factorised(case: tuple[str, str]) -> None:
    result = factorise(*case, Options(Target("macs", 0.7), threads=1, samples=16))
    assert result.pruned.macs <= 0.7 * result.dense.macs
