"""Chains of layers: valid networks of one kind of work, with the width that was asked for and the same values twice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.latency.families import FAMILIES, family_of
from onnx_subprune.latency.layer_chains import Sizes, chain
from onnx_subprune.model import open_session, run, to_graph

SMALL = Sizes(outer=6, image=5, rows=4, repeats=2, batch=2)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_chain_runs_and_gives_the_shape_that_it_took(family: str, dtype: str) -> None:
    model, feeds = chain(family, 3, SMALL, dtype)
    onnx.checker.check_model(model, full_check=True)
    assert feeds["x"].dtype == dtype
    (output,) = run(open_session(model, threads=1), feeds).values()
    assert output.shape == feeds["x"].shape
    assert output.shape == ((2, 4, 6) if family == "matmul" else (2, 6, 5, 5))
    assert np.isfinite(output).all()
    assert np.abs(output).max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_inner_layers_have_the_width_and_do_the_work(family: str) -> None:
    model, _ = chain(family, 3, SMALL)
    work = [family_of(node) for node in to_graph(model).nodes]
    assert work.count(family) >= SMALL.repeats
    assert set(work) <= {family, "pointwise", None}
    widths = {dim for tensor in model.graph.initializer for dim in tensor.dims[:2]}
    assert {3, 6} <= widths <= {1, 3, 6}


def test_the_same_width_gives_the_same_bytes() -> None:
    first, second, wider = (chain("conv", width, SMALL)[0].SerializeToString(deterministic=True) for width in (3, 3, 4))
    assert first == second != wider
