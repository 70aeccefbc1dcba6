"""Graphs as exporters wrote them, with random weights: something is found to prune, and pruning it is exact."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import relative_error
from onnx_subprune.plan import Plan

ZOO = Path(__file__).resolve().parent
NAMES = [row["name"] for row in json.loads((ZOO / "zoo.json").read_text(encoding="utf-8"))]
ORACLE = 1e-4
# Removing a quarter of all units shows at the outputs far above rounding, or the oracle would prove nothing.
SEEN = 1e-3
SECONDS = 60

# What is known to be wrong, by name; an entry that passes again fails here until it is taken out.
WRONG = {
    "gmlp_dynamo18": "nothing is prunable unless prune_normalised: LayerNormalization ties the gated half to the rest",
    "gmlp_ts17": "nothing is prunable unless prune_normalised: LayerNormalization ties the gated half to the rest",
}

# Networks whose normalised axes shrink with prune_normalised; one spelling of each family in the everyday run.
NORMALISED = (
    "albert_ts17", "autoencoder_kl_ts17", "beit_dynamo18", "bert_classifier_ts17", "bloom_dynamo18", "clip_ts17",
"conv_tasnet_dynamo18", "conv_tasnet_ts17", "convnext_dynamo18", "convnext_v2_ts17", "crossvit_ts17",
    "deit_dynamo18", "detr_ts17", "diffusion_unet_ts17", "distilbert_ts17", "electra_ts17",
    "eva_dynamo18", "falcon_ts17", "gemma2_dynamo18", "gmlp_dynamo18", "gmlp_ts17", "gpt2_dynamo18", "gpt_neox_ts17",
    "llama_dynamo18", "llama_ts17", "mlp_mixer_ts17", "opt_dynamo18", "phi3_ts17", "poolformer_ts17", "qwen3_dynamo18",
    "segformer_ts17", "swin_v2_ts17", "t5_dynamo18", "t5_ts17", "tnt_ts17", "two_tower_ts17", "vit_dynamo18",
    "vit_torchvision_ts17", "wav2vec2_ts17", "yolos_ts17",
)  # fmt: skip
SLOW = [name for name in NAMES if name not in NORMALISED]
# Of these another network of the same family is in the everyday run.
NORMALISED_SLOW = (
    "bert_classifier_ts17", "conv_tasnet_ts17", "convnext_v2_ts17", "crossvit_ts17", "deit_dynamo18",
    "diffusion_unet_ts17", "electra_ts17", "eva_dynamo18", "falcon_ts17", "gmlp_ts17", "gpt_neox_ts17", "llama_ts17",
    "opt_dynamo18", "swin_v2_ts17", "t5_dynamo18", "vit_torchvision_ts17", "yolos_ts17",
)  # fmt: skip
# Large networks that take seconds, and a network of the same operators that is in the everyday run.
WIDE = {
    "coat_ts17": "pvt", "crossvit_ts17": "vit_timm", "davit_ts17": "xcit", "dpn_ts17": "densenet",
    "efficientvit_m_ts17": "efficientvit", "hrnet_ts17": "hourglass", "inception_v3_ts17": "googlenet",
    "layout_picodet": "ppocr_det", "light_densenet121": "densenet", "light_inception_v2": "googlenet",
    "light_resnet50": "resnet50", "twins_ts17": "pvt", "vgg16_nhwc": "vgg16",
}  # fmt: skip


def twins() -> set[str]:
    """Return one spelling of every network that both exporters of PyTorch wrote: the slow tests run it.

    The other spelling runs every day; the exporters take turns. Fused graphs and other exporters have no twin.
    """
    pairs = [
        (f"{name}_ts17", f"{name}_dynamo18")
        for name in sorted(name.removesuffix("_ts17") for name in NAMES if name.endswith("_ts17"))
        if f"{name}_dynamo18" in NAMES
    ]
    return {pair[turn % 2] for turn, pair in enumerate(pairs)}


def parameters() -> list[Any]:
    slow = twins()
    return [
        pytest.param(
            name,
            marks=[
                *([pytest.mark.xfail(strict=True, reason=WRONG[name])] if name in WRONG else []),
                *([pytest.mark.slow] if name in slow or name in WIDE else []),
            ],
        )
        for name in NAMES
    ]


def test_every_architecture_is_in_the_everyday_run(entries: dict[str, Any]) -> None:
    everyday = set(NAMES) - twins() - set(WIDE)
    architectures = {entries[name].architecture for name in everyday}
    assert {entry.architecture for entry in entries.values()} - architectures <= {
        entries[name].architecture for name in WIDE
    }
    assert set(WIDE.values()) <= architectures
    exporters = Counter(entries[name].source["exporter"] for name in everyday)
    assert set(exporters) == {entry.source["exporter"] for entry in entries.values()}
    both = ("torch 2.13.0 TorchScript", "torch 2.13.0 dynamo")
    assert min(exporters[exporter] for exporter in both) > 60


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Fail a test that does not come to an end: a rule that loops must not stop the others."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", parameters())
def test_shrinking_equals_masking(
    name: str,
    entries: dict[str, Any],
    zoo_library: ModuleType,
    zoo_table: ModuleType,
    page: dict[str, Any],
    plan_at_random: Callable[..., Plan],
    check_inspection: Callable[[Analysis], None],
) -> None:
    entry = entries[name]
    model = zoo_library.refill(zoo_library.read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    analysis = analyse(model, entry.shapes(0))
    check_inspection(analysis)
    published = float(page[name].prunable.rstrip("%"))
    assert 100 * zoo_table.share(analysis.structure) > published - 0.1, "less is prunable than docs/zoo.md says"
    plan = plan_at_random(analysis, 0.75)
    assert plan.removes, "expected a prunable group, found none"
    shrunk, masked = references(analysis, plan)
    _check_valid(shrunk)
    sessions = [open_session(each, threads=1) for each in (model, masked, shrunk)]
    seen = 0.0
    for which in (0, 1):
        dense, expected, found = (run(session, entry.feeds(which, seed=1)) for session in sessions)
        for output, value in expected.items():
            assert np.isfinite(value).all(), output
            assert relative_error(found[output], value) < ORACLE, output
            seen = max(seen, relative_error(dense[output], value))
    assert seen > SEEN


# Heads in the batch, shared keys, cross-attention, windows: sizes that a batch of one makes look alike.
ONE_SAMPLE = ("bloom_ts17", "bert_dynamo18", "llama_ts17", "t5_ts17", "swin_ts17", "vit_torchvision_ts17")


@pytest.mark.parametrize("name", ONE_SAMPLE)
def test_the_nominal_batch_does_not_matter(
    name: str, entries: dict[str, Any], zoo_library: ModuleType, plan_at_random: Callable[..., Plan]
) -> None:
    """What is analysed with one sample, as calibration gives them, runs on more."""
    entry = entries[name]
    model = zoo_library.refill(zoo_library.read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    first = entry.inputs[0].shape[0]
    sizes = {axis: 1 if axis == first else size for axis, size in entry.sizes[0].items()}
    analysis = analyse(model, {each.name: each.at(sizes) for each in entry.inputs})
    shrunk, masked = references(analysis, plan_at_random(analysis, 0.75))
    for which in (0, 1):
        expected, found = (run(open_session(each, threads=1), entry.feeds(which, seed=1)) for each in (masked, shrunk))
        for output, value in expected.items():
            assert relative_error(found[output], value) < ORACLE, output


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in NORMALISED_SLOW else []) for name in NORMALISED]
)
def test_shrinking_normalised_axes_equals_masking(
    name: str, entries: dict[str, Any], zoo_library: ModuleType, plan_at_random: Callable[..., Plan]
) -> None:
    assert _normalised_axes_shrink(entries[name], zoo_library, plan_at_random), "no normalised axis may shrink"


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_normalised_axes_of_all_others(
    name: str, entries: dict[str, Any], zoo_library: ModuleType, plan_at_random: Callable[..., Plan]
) -> None:
    _normalised_axes_shrink(entries[name], zoo_library, plan_at_random)


def _check_valid(model: onnx.ModelProto) -> None:
    # ONNX Runtime writes an operator of its own without a domain, where the checker does not know it.
    if all(node.op_type != "SimplifiedLayerNormalization" for node in model.graph.node):
        onnx.checker.check_model(model, full_check=True)


def _normalised_axes_shrink(entry: Any, zoo_library: ModuleType, plan_at_random: Callable[..., Plan]) -> bool:
    """Hold a network pruned with its normalised axes to the oracle; False where it has none that may shrink."""
    model = zoo_library.refill(zoo_library.read_skeleton(ZOO / "skeletons" / f"{entry.name}.onnx.xz"))
    analysis = analyse(model, entry.shapes(0), prune_normalised=True)
    if not analysis.structure.normalisations:
        return False
    shrunk, masked = references(analysis, plan_at_random(analysis, 0.75))
    _check_valid(shrunk)
    dense, expected, found = (
        run(open_session(each, threads=1), entry.feeds(0, seed=1)) for each in (model, masked, shrunk)
    )
    for output, value in expected.items():
        assert relative_error(found[output], value) < ORACLE, output
    assert max(relative_error(dense[output], value) for output, value in expected.items()) > SEEN
    return True
