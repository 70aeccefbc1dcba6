"""How a contracted axis is laid out for statistics: positions are told from features."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.pipeline import analyse
from onnx_subprune.structure import features_of

MAP = """g (float[N,3,4,4] x) => (float[a,b] y) {{
    [c1] h = Conv(x, w1)
    {text}
    [fc] y = MatMul(f, w2)
}}"""


@pytest.mark.parametrize(
    ("text", "outer", "inner"),
    [
        ("[f] f = Flatten(h)", 1, 16),
        ("[t] t = Transpose <perm=[0,2,3,1]> (h)\n[f] f = Flatten(t)", 16, 1),
        ("[t] t = Transpose <perm=[0,2,1,3]> (h)\n[f] f = Flatten(t)", 4, 4),
    ],
)
def test_the_positions_of_a_flattened_map_are_no_features(net, text, outer, inner):
    structure = analyse(net(MAP.format(text=text), w1=(8, 3, 1, 1), w2=(128, 5))).structure
    (group,) = structure.prunable
    features = features_of(structure, group.consumers[0])
    assert (features.blocks, features.outer, features.count, features.inner) == (1, outer, 8, inner)
    assert np.array_equal(features.units(group.atom), [range(8)])
    keep = np.arange(8) % 2 == 0
    assert np.array_equal(features.kept({group.atom: keep}), [keep])
