"""Times as a function of widths: of a machine whose time is a known sum, the model finds the sum again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from onnx_subprune.latency.latency_model import LatencyModel
from onnx_subprune.network.analysis import Analysis, analyse

NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x) => (float[1,5] y) {
    [c0] s = Conv(x, w0)
    [c1] a = Conv <pads=[1,1,1,1]> (s, w1)
    [r1] b = Relu(a)
    [c2] c = Conv(b, w2)
    [j] d = Add(s, c)
    [p] e = GlobalAveragePool(d)
    [f] f = Flatten(e)
    [m] y = MatMul(f, w3)
}"""
SHAPES = {"w0": (8, 3, 1, 1), "w1": (12, 8, 3, 3), "w2": (8, 12, 1, 1), "w3": (8, 5)}
CONSTANT = 0.3


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in SHAPES.items():
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return analyse(model)


@pytest.fixture(scope="module")
def sizes(analysis: Analysis) -> dict[str, int]:
    return {group.name: group.size for group in analysis.structure.prunable}


def truth(analysis: Analysis, widths: Mapping[str, int]) -> float:
    """A constant and the multiply-accumulates."""
    atoms = {group.name: group.atom for group in analysis.structure.prunable}
    macs = analysis.structure.macs({atoms[name]: count for name, count in widths.items()})
    return CONSTANT + (1 - CONSTANT) * macs / analysis.structure.macs({})


@pytest.fixture(scope="module")
def learnt(analysis: Analysis, sizes: dict[str, int]) -> LatencyModel:
    rng = np.random.default_rng(0)
    widths = [{name: int(rng.integers(1, size + 1)) for name, size in sizes.items()} for _ in range(12)]
    return LatencyModel(analysis.structure, widths, [truth(analysis, each) for each in widths])


def test_the_groups_are_the_stream_and_the_branch(sizes: dict[str, int]) -> None:
    assert sorted(sizes.values()) == [8, 12]


def test_widths_that_were_not_measured_are_predicted(
    analysis: Analysis, learnt: LatencyModel, sizes: dict[str, int]
) -> None:
    for share in (0.3, 0.5, 0.8):
        widths = {name: max(1, round(share * size)) for name, size in sizes.items()}
        assert learnt(widths) == pytest.approx(truth(analysis, widths), abs=0.03)
    assert learnt({}) == pytest.approx(1.0, abs=0.02)
    assert learnt.error < 0.05


def test_a_wider_network_never_takes_less(learnt: LatencyModel, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        others = {other: count // 2 for other, count in sizes.items() if other != name}
        assert (np.diff([learnt({**others, name: count}) for count in range(1, size + 1)]) >= 0).all()


def test_a_branch_that_is_gone_takes_no_time(learnt: LatencyModel, sizes: dict[str, int]) -> None:
    """With one unit less than one, all nodes of the branch are gone, not only its products."""
    branch = next(name for name, size in sizes.items() if size == 12)
    assert learnt({branch: 0}) < learnt({branch: 1})
    assert learnt({branch: 0}) == learnt({branch: 0}), "the answer is kept"


def test_groups_that_are_not_named_are_whole(learnt: LatencyModel, sizes: dict[str, int]) -> None:
    assert learnt({}) == learnt(sizes)
