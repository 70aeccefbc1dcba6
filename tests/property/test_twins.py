"""Units that are copies of others go without a trace, also where an axis holds all pairs of them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import onnx
from generator.twins import with_twins

from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.verify import disagreement
from onnx_subprune.options import Options, RecoveryOptions
from onnx_subprune.pipeline import apply
from onnx_subprune.plan import Plan, PlannedGroup

SHAPES = {"x": (2, 5, 6)}
PAIRS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,5,6] x) => (float[N,3] y) {
    [m] h = MatMul(x, w)
    [t] t = Transpose <perm=[0,2,1]> (h)
    [p] p = MatMul(t, h)
    [f] f = Flatten(p)
    [g] y = Gemm(f, v, b)
}"""


def test_pairs_of_units() -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(PAIRS)
    for name, shape in {"w": (6, 8), "v": (64, 3), "b": (3,)}.items():
        values = (rng.standard_normal(shape) / 4).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    data = {"x": rng.standard_normal((256, 5, 6)).astype(np.float32)}
    for seed in range(3):
        made = with_twins(analyse(model, SHAPES), random.Random(seed))
        assert made is not None
        copied, name, kept = made
        plan = Plan(
            analyse(copied, SHAPES).fingerprint,
            "twins",
            (PlannedGroup(name, 8, kept),),
            RecoveryOptions(recovery="channel", ridge=1e-10),
        )
        without = replace(plan, options=RecoveryOptions(recovery="none"))
        bare, found = (apply(chosen, copied, data, Options(threads=1)).model for chosen in (without, plan))
        assert disagreement(bare, copied, {"x": data["x"][:4]}) > 1e-2
        assert disagreement(found, copied, {"x": data["x"][:4]}) < 1e-5
