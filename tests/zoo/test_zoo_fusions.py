"""What pruning leaves behind stands in the way of no fusion: ONNX Runtime's optimiser fuses it as it does the dense."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ZOO = Path(__file__).resolve().parent
NAMES = (
    "bert_ts17", "bert_dynamo18", "distilbert_dynamo18", "gpt2_dynamo18", "llama_ts17", "vit_dynamo18",
    "swin_dynamo18", "t5_ts17", "whisper_encoder_dynamo18", "resnet18_ts17", "mobilenet_v3_small_ts17",
    "efficientnet_b0_dynamo18", "yolo_dynamo18", "unet_ts17", "convnext_dynamo18", "bloom_ts17", "segformer_ts17",
    "bert_classic_ort17", "clip_ort17",
)  # fmt: skip
# Queries, keys and values that stood in one tensor: a Split and views of its parts take the place of three picks.
UNPACKED = {"cait_ts17": {"Split"}}


@pytest.fixture(scope="session")
def fusions(zoo_table: ModuleType) -> ModuleType:
    """Return tools/fusion_table.py, whose zoo is that of the other tool."""
    import fusion_table  # noqa: PLC0415  (it imports the zoo by its name)

    return fusion_table


# Others of their kind are in the everyday run.
SLOW = ("bert_dynamo18", "bloom_ts17", "segformer_ts17")
# Of each kind one, with the default recovery too.
EXACT = ("bert_ts17", "gpt2_dynamo18", "llama_ts17", "resnet18_ts17", "efficientnet_b0_dynamo18", "convnext_dynamo18")
CASES = [
    *((name, "channel") for name in (*NAMES, *UNPACKED) if name not in (*EXACT, *SLOW)),
    *((name, "exact") for name in EXACT),
    *(pytest.param(name, "channel", marks=pytest.mark.slow) for name in (*EXACT, *SLOW)),
]


@pytest.mark.parametrize(("name", "recovery"), CASES)
def test_fusions_are_as_many_and_nothing_is_left(
    name: str, recovery: str, entries: dict[str, Any], fusions: ModuleType
) -> None:
    dense, pruned = fusions.prune_entry(entries[name], fusions.options_of(recovery, 0.75, False))
    written = fusions.operators(pruned)
    before = fusions.operators(dense)
    biases = max(0, written["Add"] - before["Add"])
    found = fusions.differences(dense, pruned, "extended")
    assert set(fusions.obstacles(found, biases)) <= UNPACKED.get(name, set()), found
    idle = {op: written[op] - before[op] for op in ("Identity", "Pad", "Slice", "Where", "Squeeze", "Transpose")}
    allowed = {"Transpose"} if name in UNPACKED else set()
    assert all(more <= 0 or op in allowed for op, more in idle.items()), idle


def test_an_obstacle_is_seen(fusions: ModuleType) -> None:
    lost = {"BiasGelu": (2, 0), "Gelu": (0, 2), "Add": (4, 6)}
    assert fusions.obstacles(lost, 0) == {"BiasGelu": (2, 0), "Add": (4, 6)}
    assert fusions.obstacles(lost, 2) == {"BiasGelu": (2, 0)}
    won = {"SkipLayerNormalization": (0, 4), "LayerNormalization": (5, 1), "Add": (9, 5)}
    assert fusions.obstacles(won, 0) == {}
    assert fusions.obstacles({"Where": (0, 1)}, 0) == {"Where": (0, 1)}


def test_nodes_of_bodies_are_counted(fusions: ModuleType, entries: dict[str, Any]) -> None:
    model = fusions.refill(fusions.read_skeleton(ZOO / "skeletons" / "silero_vad.onnx.xz"))
    assert fusions.operators(model) > Counter(node.op_type for node in model.graph.node)
