"""Which multiples pay, decided from times that kernels of known blocks would take; and one real measurement."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_subprune.latency import FAMILIES, Decision, Sizes, chain, decided, measured_multiples
from onnx_subprune.latency.multiples import WIDTHS
from onnx_subprune.model import open_session, run


def seconds(block: int, noise: float = 0.0, slower: float = 0.0, scale: int = 1) -> np.ndarray:
    """Times [9, widths] of kernels that work on whole blocks, and `slower` on the rest of the last one."""
    widths = scale * np.array(WIDTHS)
    full = block * np.ceil(widths / block)
    times = 20.0 * scale + full * (1 + slower * (widths % block > 0))
    return times * np.random.default_rng(0).normal(1.0, noise, (9, len(widths)))


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("slower", [0.0, 0.5])
def test_the_block_of_a_kernel_is_found(block: int, slower: float) -> None:
    assert decided(WIDTHS, seconds(block, slower=slower)) == Decision(block, sure=True)


@pytest.mark.parametrize("block", [8, 16])
def test_a_little_noise_changes_nothing(block: int) -> None:
    assert decided(WIDTHS, seconds(block, noise=0.003)).multiple == block


def test_too_much_noise_is_said_and_small_multiples_are_taken() -> None:
    times = np.ones((9, len(WIDTHS))) * np.linspace(1.0, 2.0, len(WIDTHS))
    times *= np.random.default_rng(1).normal(1.0, 0.5, times.shape)
    assert not decided(WIDTHS, times).sure


def test_blocks_of_a_gpu_are_found_among_wider_layers() -> None:
    widths = [4 * width for width in WIDTHS]
    assert decided(widths, seconds(8, scale=4)) == Decision(8, sure=True)
    assert decided(widths, seconds(64, scale=4)) == Decision(64, sure=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [7, 16])
def test_chains_run_with_layers_of_the_width_asked_for(family: str, width: int) -> None:
    model, feeds = chain(family, width, Sizes(outer=8, image=4, rows=5, repeats=2, batch=2))
    (found,) = run(open_session(model), feeds).values()
    assert found.shape == feeds["x"].shape
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    assert sum(width in shape[:2] for shape in shapes) == len(shapes)
    assert sum(shape[1:2] == (1,) for shape in shapes) == (2 if family == "depthwise" else 0)


def test_a_real_machine_gives_a_power_of_two_for_every_kind_of_work() -> None:
    found = measured_multiples(threads=1)
    assert set(found) == set(FAMILIES)
    assert all(1 <= one.multiple <= 32 and math.log2(one.multiple).is_integer() for one in found.values())
