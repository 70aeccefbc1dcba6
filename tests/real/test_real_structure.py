"""What is found to be prunable in networks as exporters write them, and that shrinking them is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache

import onnx
import pytest

from onnx_subprune.pipeline import analyse
from onnx_subprune.structure import Group, Structure

Network = Callable[[str], onnx.ModelProto]
Inference = Callable[[str], Structure]

RESNETS = {"resnet32_cifar10": 5, "resnet56_cifar10": 9}
GROUPS = {"resnet32_cifar10": 20, "resnet56_cifar10": 32, "efficientnet_lite0": 24}
EXPORTERS = ("ts17", "dynamo18")


@pytest.fixture(scope="module")
def structure_of(network: Network) -> Inference:
    """Return the structure of a network, inferred once."""

    @cache
    def infer(name: str) -> Structure:
        return analyse(network(name)).structure

    return infer


def streams(structure: Structure) -> list[Group]:
    return [group for group in structure.prunable if len(group.producers) > 1]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", GROUPS)
def test_everything_but_the_logits_is_prunable(structure_of: Inference, name: str, exporter: str) -> None:
    structure = structure_of(f"{name}_{exporter}")
    assert len(structure.prunable) == GROUPS[name]
    (logits,) = structure.frozen
    assert logits.size == (1000 if name == "efficientnet_lite0" else 10)
    assert logits.reasons == ("graph output 'logits'",)
    assert [use.node.op for use in logits.producers] == ["Gemm"]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", RESNETS)
def test_zero_padded_shortcuts_tie_the_residual_stream_across_stages(
    structure_of: Inference, name: str, exporter: str
) -> None:
    blocks = RESNETS[name]
    groups = streams(structure_of(f"{name}_{exporter}"))
    # The stem and every block of three stages write the first part; padding adds two more at the next two stages.
    writers = [1 + 3 * blocks, 2 * blocks, 2 * blocks, blocks, blocks]
    assert [(group.size, len(group.producers)) for group in groups] == list(
        zip([16, 8, 8, 16, 16], writers, strict=True)
    )
    assert [len(group.consumers) for group in groups] == writers


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", RESNETS)
def test_inner_channels_of_a_block_have_one_producer_and_one_consumer(
    structure_of: Inference, name: str, exporter: str
) -> None:
    structure = structure_of(f"{name}_{exporter}")
    inner = [group for group in structure.prunable if len(group.producers) == 1]
    assert Counter(group.size for group in inner) == {16: RESNETS[name], 32: RESNETS[name], 64: RESNETS[name]}
    assert all(len(group.consumers) == 1 for group in inner)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_depthwise_weights_carry_the_expanded_channels(structure_of: Inference, exporter: str) -> None:
    structure = structure_of(f"efficientnet_lite0_{exporter}")
    expanded = [g for g in structure.prunable if any(use.node.attrs.get("group", 1) == g.size for use in g.carriers)]
    # Fifteen blocks expand, and the first works on the stem's channels.
    assert sorted(group.size for group in expanded) == sorted(
        [32, 96, 144, 144, 240, 240, *[480] * 3, *[672] * 3, *[1152] * 4]
    )
    assert [(g.size, len(g.producers)) for g in streams(structure)] == [(24, 2), (40, 2), (80, 3), (112, 3), (192, 4)]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", GROUPS)
def test_both_exporters_cost_the_same(structure_of: Inference, name: str, exporter: str) -> None:
    published = {"resnet32_cifar10": 69e6, "resnet56_cifar10": 125e6, "efficientnet_lite0": 386e6}
    structure = structure_of(f"{name}_{exporter}")
    assert structure.macs({}) == pytest.approx(published[name], rel=0.02)
    halves = {group.atom: group.size // 2 for group in structure.prunable}
    assert 0.2 < structure.macs(halves) / structure.macs({}) < 0.35


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", GROUPS)
def test_shrinking_equals_masking(
    network: Network, mask_oracle: Callable[..., object], name: str, exporter: str
) -> None:
    model = network(f"{name}_{exporter}")
    size = 224 if name == "efficientnet_lite0" else 32
    mask_oracle(model, fraction=0.5, run_shapes={"input": (2, 3, size, size)})
