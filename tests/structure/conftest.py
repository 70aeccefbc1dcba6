"""Small networks from text, and what is asserted of their structure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnx_subprune.evaluate import random_feeds
from onnx_subprune.model import input_specs, open_session, run
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import Options, RecoveryOptions
from onnx_subprune.pipeline import analyse, apply
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.structure import Structure

Net = Callable[..., onnx.ModelProto]


def _values(spec: np.ndarray | np.generic | Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return an array as it is; for a shape, random weights that keep activations near unit size."""
    if isinstance(spec, np.ndarray | np.generic):
        return np.asarray(spec)
    fan = math.prod(spec[1:]) if len(spec) > 2 else (spec[0] if len(spec) == 2 else 4)
    return (rng.standard_normal(tuple(spec)) / math.sqrt(max(1, fan))).astype(np.float32)


@pytest.fixture
def net() -> Net:
    """`net(graph text, opset=17, domains="", **weights)`: a checked model; a weight is an array or a shape."""

    def build(text: str, opset: int = 17, domains: str = "", ir: int = 8, **weights: object) -> onnx.ModelProto:
        rng = np.random.default_rng(1)
        model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}{domains}]>\n{text}')
        for name, spec in weights.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(_values(spec, rng), name))  # type: ignore[arg-type]
        onnx.checker.check_model(model)
        return model

    return build


@pytest.fixture
def between(net: Net) -> Net:
    """`between(text, opset, **weights)`: Conv c1 of 8 channels -> `text`, which makes r from h -> Conv c2 on `out`."""

    def build(text: str, opset: int = 17, out: int = 8, image: str = "2,3,6,7", **weights: object) -> onnx.ModelProto:
        return net(
            f"""g (float[{image}] x) => (float[a,b,c,d] y) {{
                [c1] h = Conv(x, w1, b1)
                {text}
                [c2] y = Conv(r, w2)
            }}""",
            opset=opset, w1=(8, 3, 1, 1), b1=(8,), w2=(4, out, 1, 1), **weights,
        )  # fmt: skip

    return build


@pytest.fixture
def holds(mask_oracle: Callable[..., object]) -> Callable[..., Structure]:
    """`holds(model, {group: size})`: exactly these groups are prunable, and the mask oracle holds on three plans."""

    def check(
        model: onnx.ModelProto,
        expected: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        *,
        prune_normalised: bool = False,
        **options: object,
    ) -> Structure:
        structure = analyse(model, shapes, prune_normalised=prune_normalised).structure
        assert {group.name: group.size for group in structure.prunable} == dict(expected), _why(structure)
        for seed, fraction in enumerate((0.5, 0.75, 0.01)):
            mask_oracle(model, shapes, fraction=fraction, seed=seed, prune_normalised=prune_normalised, **options)
        return structure

    return check


@pytest.fixture
def holds_by_definition(plan_at_random: Callable[..., Plan]) -> Callable[..., Structure]:
    """`holds_by_definition(model, {group: size}, operators)`: as `holds`, for operators that no kernel here is for.

    What they compute is said by classes of ONNX's reference evaluator.
    """

    def check(model: onnx.ModelProto, expected: Mapping[str, int], operators: Sequence[type[OpRun]]) -> Structure:
        analysis = analyse(model)
        assert {group.name: group.size for group in analysis.structure.prunable} == dict(expected)
        feeds = random_feeds(input_specs(model), analysis.input_shapes, 0)
        for seed, fraction in enumerate((0.5, 0.75, 0.01)):
            shrunk, masked = references(analysis, plan_at_random(analysis, fraction, seed))
            found, wanted = (ReferenceEvaluator(m, new_ops=list(operators)).run(None, feeds) for m in (shrunk, masked))
            for value, other in zip(found, wanted, strict=True):
                assert np.abs(other).max() > 0
                assert relative_error(value, other) < 1e-4
        return analysis.structure

    return check


@pytest.fixture
def refuses() -> Callable[..., Structure]:
    """`refuses(model, {group: reason})`: nothing is prunable but `allowed`, and the reasons contain these words."""

    def check(
        model: onnx.ModelProto,
        expected: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        allowed: Sequence[str] = (),
        *,
        prune_normalised: bool = False,
    ) -> Structure:
        structure = analyse(model, shapes, prune_normalised=prune_normalised).structure
        assert [group.name for group in structure.prunable] == list(allowed), _why(structure)
        reasons = {group.name: "; ".join(group.reasons) for group in structure.frozen}
        for name, words in expected.items():
            assert words in reasons.get(name, "no such group"), reasons
        return structure

    return check


@pytest.fixture
def exact() -> Callable[..., None]:
    """`exact(model, {group: kept units})`: removing the rest changes nothing with recovery, and much without.

    Without groups, c1 keeps its first five units.
    """

    def check(model: onnx.ModelProto, kept: Mapping[str, Sequence[int]] | None = None, tolerance: float = 1e-4) -> None:
        rng = np.random.default_rng(7)
        analysis = analyse(model)
        kept = {"c1": range(5)} if kept is None else kept
        assert set(kept) <= {group.name for group in analysis.structure.prunable}, _why(analysis.structure)
        results = {}
        shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input}
        data = {name: rng.standard_normal((64, *shape[1:])).astype(np.float32) for name, shape in shapes.items()}
        fresh = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        expected = run(open_session(model), fresh)
        for recovery in ("channel", "none"):
            groups = tuple(
                PlannedGroup(g.name, g.size, tuple(kept.get(g.name, range(g.size))))
                for g in analysis.structure.prunable
            )
            plan = Plan(analysis.fingerprint, "by hand", groups, RecoveryOptions(recovery=recovery, ridge=0.0))
            pruned = apply(plan, model, data, Options(batch_size=2, threads=1)).model
            found = run(open_session(pruned), fresh)
            results[recovery] = max(relative_error(found[name], value) for name, value in expected.items())
        assert results["none"] > 3e-2, "the removed units do not matter: the test would prove nothing"
        assert results["channel"] < tolerance, results

    return check


def _why(structure: Structure) -> str:
    return "\n".join(f"{group.name} ({group.size}): {group.reasons or 'prunable'}" for group in structure.groups)
