"""Ranks for a target: what they cost, and which layers give most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Statistics
from onnx_subprune.errors import TargetError
from onnx_subprune.factorisation.low_rank_pipeline import calibrate_layers
from onnx_subprune.factorisation.ranks import RankedLayer, allocate_ranks, spectrum_of, tap_of_layer
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.options import Options, Target
from onnx_subprune.structure import Layer, layers_of

OPTIONS = Options(threads=1)
Ranks = Callable[..., dict[str, int | None]]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Return a wide layer of rank 2, a narrow one of full rank, and a square one."""
    built = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,24] x) => (float[N,16] y) {
            [low] a = MatMul(x, w1) b = Relu(a) [full] c = MatMul(b, w2) d = Relu(c) [square] y = MatMul(d, w3)
        }"""
    )
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((24, 2)) @ rng.standard_normal((2, 12)),
        "w2": rng.standard_normal((12, 16)),
        "w3": rng.standard_normal((16, 16)),
    }
    for name, values in weights.items():
        built.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return built


@pytest.fixture(scope="module")
def analysis(model: onnx.ModelProto) -> Analysis:
    return analyse(model)


@pytest.fixture(scope="module")
def layers(analysis: Analysis) -> list[Layer]:
    return layers_of(analysis.structure)[0]


@pytest.fixture(scope="module")
def statistics(model: onnx.ModelProto) -> Statistics:
    samples = np.random.default_rng(1).standard_normal((300, 24)).astype(np.float32)
    return calibrate_layers(model, {"x": samples}, OPTIONS)


@pytest.fixture
def ranks(analysis: Analysis, layers: list[Layer], statistics: Statistics) -> Ranks:
    def allocate(target: str, **options: int) -> dict[str, int | None]:
        spectra = {layer.name: spectrum_of(layer, statistics) for layer in layers}
        chosen = replace(OPTIONS, target=Target.parse(target), **options)
        return {layer.name: layer.rank for layer in allocate_ranks(analysis, layers, spectra, chosen)}

    return allocate


def test_a_layer_is_tapped_at_its_narrower_side(layers: list[Layer]) -> None:
    assert {layer.name: tap_of_layer(layer).tensor for layer in layers} == {"low": "a", "full": "b", "square": "y"}


def test_the_spectrum_of_a_layer_of_rank_two_has_two_variances(layers: list[Layer], statistics: Statistics) -> None:
    variances = np.sort(spectrum_of(layers[0], statistics).variances)[::-1]
    assert variances[2] < 1e-6 * variances[1]


def test_the_layer_that_loses_least_is_cut_first(ranks: Ranks) -> None:
    assert ranks("variance=0.999")["low"] == 2
    chosen = ranks("macs=0.8")
    assert chosen["low"] in (2, 3)
    assert (chosen["full"], chosen["square"]) == (None, None)


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_the_target_is_met(analysis: Analysis, ranks: Ranks, kind: str, share: float) -> None:
    """Without biases a product of rank r takes r (m + n) of each."""
    sizes = {"low": (24, 12), "full": (12, 16), "square": (16, 16)}
    costs = {
        name: np.prod(sizes[name]) if rank is None else rank * sum(sizes[name])
        for name, rank in ranks(f"{kind}={share}").items()
    }
    biases = sum(sizes[name][1] for name, rank in ranks(f"{kind}={share}").items() if rank is not None)
    total = sum(np.prod(size) for size in sizes.values())
    spent = sum(costs.values()) + (biases if kind == "params" else 0)
    assert spent <= share * total
    assert spent > 0.6 * share * total


def test_units_is_the_share_of_the_own_cost_of_every_layer(ranks: Ranks) -> None:
    assert ranks("units=0.5") == {"low": 4, "full": 3, "square": 4}
    assert ranks("units=0.5", round_to=2) == {"low": 4, "full": 2, "square": 4}
    assert set(ranks("units=1").values()) == {None}


def test_a_target_out_of_reach_names_the_nearest(ranks: Ranks) -> None:
    with pytest.raises(TargetError, match=r"layers of rank 1 leave 0\.\d+ of the macs; ask for macs=0\.\d+ or more"):
        ranks("macs=0.01")


def test_costs_of_a_layer_at_its_rank() -> None:
    layer = RankedLayer("fc", outputs=8, features=24, macs=192, most=5, rank=2, share=0.9)
    assert layer.macs_kept == 2 * (8 + 24)
    assert layer.parameters_saved(0) == 8 * 24 - 2 * (8 + 24)
    assert layer.parameters_saved(8) == layer.parameters_saved(0) - 8
    whole = replace(layer, rank=None)
    assert (whole.macs_kept, whole.parameters_saved(8)) == (192, 0)
