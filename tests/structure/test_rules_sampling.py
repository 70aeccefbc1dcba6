"""GridSample, RoiAlign, Col2Im: channels pass, space does not."""

from __future__ import annotations

import numpy as np
import pytest

ROIS = np.float32([[0, 0, 4, 3], [1, 1, 5, 5], [0, 2, 3, 4]])

GRID = np.linspace(-1, 1, 2 * 4 * 5 * 2, dtype=np.float32).reshape(2, 4, 5, 2)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("[g] r = GridSample(h, grid)", {"grid": GRID}),
        (
            "[a] grid = AffineGrid(theta, size)\n[g] r = GridSample(h, grid)",
            {
                "theta": np.float32([[[1, 0.1, 0], [0, 1, 0.2]], [[0.5, 0, 0], [0.3, 1, 0]]]),
                "size": np.array([2, 8, 4, 5]),
            },
        ),
        (
            "[g] r = RoiAlign <output_height=2, output_width=3> (h, rois, which)",
            {"rois": ROIS, "which": np.array([0, 1, 1])},
        ),
        ("[g] r = MaxRoiPool <pooled_shape=[2,3]> (h, rois)", {"rois": np.pad(ROIS, ((0, 0), (1, 0)))}),
    ],
)  # fmt: skip
def test_channels_pass(between, holds, text, weights):
    holds(between(text, opset=20, **weights), {"c1": 8})


def test_channels_behind_the_entries_of_a_block(net, holds):
    """Fold of patches: 3 channels x (2 x 2) entries each; whole channels go."""
    model = net(
        """g (float[2,6,4] x) => (float[a,b,c,d] y) {
            [m1] h = MatMul(w1, x)
            [f] f = Col2Im <strides=[2,2]> (h, image, block)
            [c2] y = Conv(f, w2)
        }""",
        opset=18, w1=(12, 6), w2=(4, 3, 1, 1), image=np.array([4, 4]), block=np.array([2, 2]),
    )  # fmt: skip
    holds(model, {"m1": 3})


def test_places_that_a_layer_computes_stay(net, refuses):
    """A spatial transformer: the six numbers of each transform are units of nothing."""
    model = net(
        """g (float[2,3,6,6] x, float[2,5] z) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [m1] m = MatMul(z, w2)
            [r] theta = Reshape(m, shape)
            [a] grid = AffineGrid(theta, size)
            [g] s = GridSample(h, grid)
            [c2] y = Conv(s, w3)
        }""",
        opset=20, w1=(8, 3, 1, 1), w2=(5, 6), w3=(4, 8, 1, 1), shape=np.array([2, 2, 3]),
        size=np.array([2, 8, 4, 5]),
    )  # fmt: skip
    structure = refuses(model, {"m1": "computes places from this axis"}, allowed=["c1"])
    grid = structure.records.axes["grid"]
    assert [dim.size for dim in grid] == [2, 4, 5, 2]


def test_a_grid_as_large_as_a_layer_is_wide_freezes_it(net, refuses):
    """The sizes wanted hold the number of channels, which the transform is computed with."""
    model = net(
        """g (float[2,3,6,6] x, float[2,2,3] theta) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [a] grid = AffineGrid(theta, s)
            [g] k = GridSample(h, grid)
            [c2] y = Conv(k, w3)
        }""",
        opset=20, w1=(8, 3, 1, 1), w3=(4, 8, 1, 1),
    )  # fmt: skip
    refuses(model, {"c1": "computes with the size of this axis"})
