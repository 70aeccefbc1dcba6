"""Exact recovery of graphs as exporters wrote them: it comes through, and what comes out runs at another size too."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import analyse, prune
from onnx_subprune.recovery.exact.fused_nodes import names_in, take_apart
from onnx_subprune.recovery.exact.linear_layers import RECURRENCE, find_linears

ZOO = Path(__file__).resolve().parent
# Computed shapes, heads and windows in the batch, branches in bodies, LayerScale, squeeze and excitation, stacks,
# half-precision casts, fused attention, fused convolutions, recurrent layers, heads over several maps. Encoders and
# decoders, option-A shortcuts, transposed convolutions and one block applied over and over are in test_zoo_commands.py.
NAMES = (
    "segformer_dynamo18", "bloom_ts17", "swin_v2_dynamo18", "silero_vad", "cait_ts17", "repvit_ts17", "resmlp_ts17",
    "mistral_dynamo18", "retinanet_ts17", "bert_classic_ort17", "resnet18_session17", "gru_classifier_ts17",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_exact_recovery_comes_through(name: str, entries: dict[str, Any], zoo_library: ModuleType) -> None:
    entry = entries[name]
    model = zoo_library.refill(zoo_library.read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    options = Options(Target("units", 0.75), select="magnitude", recovery="exact", batch_size=4, threads=1)
    result = prune(model, [entry.feeds(0, seed=seed) for seed in range(4)], options)
    for which in (0, 1):
        for output, value in run(open_session(result.model, threads=1), entry.feeds(which, seed=9)).items():
            assert np.isfinite(value).all(), output


# All that is left to recovery by channel in these networks: the states of recurrent layers.
REACHED = {
    "albert_dynamo18": set(),
    "bert_classic_ort17": set(),
    "resnet18_session17": set(),
    "retinanet_ts17": set(),
    "gru_classifier_ts17": {RECURRENCE},
}


@pytest.mark.parametrize("name", REACHED)
def test_exact_recovery_reaches_every_layer(name: str, entries: dict[str, Any], zoo_library: ModuleType) -> None:
    model = zoo_library.refill(zoo_library.read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    normalised = analyse(model, entries[name].shapes(0)).normalised
    linears, reasons = find_linears(take_apart(normalised, names_in(normalised)).model)
    assert linears
    assert set(reasons.values()) == REACHED[name]
