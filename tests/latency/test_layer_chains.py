"""Chains of layers: valid networks of one kind of work, with the width asked for and inputs that fit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.latency import FAMILIES, Sizes, chain, family_of
from onnx_subprune.model import open_session, run, to_graph

SIZES = Sizes(outer=8, image=6, rows=4, repeats=2, batch=3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_chain_is_of_its_kind_and_runs(family: str, dtype: str) -> None:
    model, feeds = chain(family, 5, SIZES, dtype)
    onnx.checker.check_model(model, full_check=True)
    families = {kind for node in to_graph(model).nodes if (kind := family_of(node))}
    assert families == ({"depthwise", "pointwise"} if family == "depthwise" else {family})
    (output,) = run(open_session(model, threads=1), feeds).values()
    assert output.shape == feeds["x"].shape
    assert output.dtype == np.dtype(dtype)
    assert np.isfinite(output).all()


def test_only_the_inner_width_follows_the_width() -> None:
    for family in FAMILIES:
        sides = {axis for tensor in chain(family, 5, SIZES)[0].graph.initializer for axis in tensor.dims[:2]}
        assert sides <= {5, SIZES.outer, 1}
        assert 5 in sides
        repeats = [len(chain(family, 5, Sizes(repeats=number))[0].graph.node) for number in (1, 3)]
        assert repeats[1] == 3 * repeats[0]


def test_the_same_width_gives_the_same_bytes() -> None:
    one, other = (chain("conv", 5, SIZES)[0].SerializeToString(deterministic=True) for _ in range(2))
    assert one == other
