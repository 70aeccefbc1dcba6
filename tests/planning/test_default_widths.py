"""Widths that nobody asked for are multiples of eight, of less in narrow layers and for targets that leave no room."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest

from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.options import Options, Target
from onnx_subprune.planning.default_widths import default_multiple, least_cuts, width_steps

SIZES = (64, 24, 16, 12, 8, 5, 3)


def _chain(sizes: tuple[int, ...] = SIZES) -> Analysis:
    """Return Gemms of these many units, one after the other."""
    ends = (6, *sizes, 2)
    lines = ["a0 = Identity(x)"]
    shapes = {}
    for number, (reads, makes) in enumerate(pairwise(ends)):
        lines += [f"b{number} = Gemm(a{number}, w{number})", f"a{number + 1} = Relu(b{number})"]
        shapes[f"w{number}"] = (reads, makes)
    lines.append(f"y = Identity(a{len(sizes) + 1})")
    text = f'<ir_version: 8, opset_import: ["": 17]>\ng (float[N,6] x) => (float[N,2] y) {{ {chr(10).join(lines)} }}'
    model = onnx.parser.parse_model(text)
    for name, shape in shapes.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return analyse(model)


def _steps(analysis: Analysis, target: str, **chosen: object) -> list[int]:
    groups = analysis.structure.prunable
    return list(width_steps(analysis, groups, Options(Target.parse(target), **chosen)).values())  # type: ignore[arg-type]


def test_layers_of_two_blocks_keep_whole_ones_and_narrow_ones_parts() -> None:
    analysis = _chain()
    assert [group.size for group in analysis.structure.prunable] == list(SIZES)
    assert _steps(analysis, "macs=0.9") == [8, 8, 8, 4, 4, 2, 1]


@pytest.mark.parametrize("target", ["params=0.9", "units=0.9", "variance=0.9", "latency=0.9"])
def test_targets_that_count_otherwise_take_any_width(target: str) -> None:
    assert set(_steps(_chain(), target)) == {1}


def test_a_number_is_a_number_for_all() -> None:
    assert _steps(_chain(), "macs=0.9", round_to=4) == [4] * len(SIZES)
    assert _steps(_chain(), "macs=0.9", round_to="auto") == [1] * len(SIZES)


def test_a_target_that_blocks_leave_no_room_for_takes_smaller_ones() -> None:
    wide = _chain((32, 32, 32))
    assert [_steps(wide, f"macs={target}")[0] for target in (0.5, 0.2, 0.08, 0.03, 0.001)] == [8, 8, 4, 2, 1]


def test_what_pays_is_a_matter_of_the_provider_and_the_precision() -> None:
    single = _chain().model
    half = onnx.ModelProto()
    half.CopyFrom(single)
    for tensor in half.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    on_gpu = Options(Target("macs", 0.5), providers=("CUDAExecutionProvider", "cpu"))
    assert [default_multiple(model, on_gpu) for model in (single, half)] == [4, 8]
    assert [default_multiple(model, Options()) for model in (single, half)] == [8, 8]
    assert default_multiple(single, Options(Target("drop", 0.1))) == 8
    assert default_multiple(single, Options(Target("drop", 0.1), cost="params")) == 1


def test_a_cut_that_fills_no_block_is_not_made() -> None:
    analysis = _chain()
    groups = analysis.structure.prunable

    def cuts(target: str, **chosen: object) -> list[int]:
        return list(least_cuts(analysis, groups, Options(Target.parse(target), **chosen)).values())  # type: ignore[arg-type]

    assert cuts("params=0.9") == cuts("latency=0.9") == cuts("macs=0.9") == [8, 1, 1, 1, 1, 1, 1]
    # Shares of units, and widths that were asked for, are taken at their word.
    assert cuts("units=0.9") == cuts("params=0.9", round_to=1) == [1] * len(SIZES)
