"""Shapes on record after a shrink: of channels times sizes of run time too."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import restructured
from onnx_subprune.passes import Shrink
from onnx_subprune.structure import Atom, Dim

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,3] y) { [m] y = MatMul(x, w) }"""


def test_an_axis_of_channels_times_run_time_sizes() -> None:
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w"))
    structure = restructured(analyse(model))
    channels, width = Atom(6), Atom(5)
    width.dynamic = True
    keeps = {channels: np.arange(6) < 2}
    kept = Shrink(structure, keeps)._kept_size
    assert kept(6, Dim((channels,))) == 2
    assert kept(30, Dim((channels, width))) == 10
    assert kept(42, Dim((channels, width))) is None, "recorded with another width than it was analysed with"
    assert kept(7, Dim((width,))) == 7
    assert kept("6*width", Dim((channels, width))) is None, "in another layer the symbol stands for another size"
    assert kept("width", Dim((width,))) == "width"
