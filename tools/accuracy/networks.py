"""The networks: their data, how they are measured, and the sizes to which they are pruned.

What the page needs to know of a network stands in `NETWORKS`; models and data are read only by `Network.open`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from datasets import Images, cifar10, cifar10_resized, data_folder, imagenet_samples, imagenette
from onnx import numpy_helper

from accuracy.sentences import by_length, correlation, sentences
from accuracy.wikitext import calibration_windows
from onnx_subprune.calibration import Dataset, open_data, open_tokens
from onnx_subprune.evaluate import perplexity, top1
from onnx_subprune.model import Cost, input_specs, load_model, measure_cost
from onnx_subprune.network.analysis import analyse
from onnx_subprune.options import Target
from onnx_subprune.structure import Group

__all__ = ["NETWORKS", "Budget", "Network", "Opened", "budget_of", "kind"]

THREADS = 1
WINDOW, WINDOWS, CUT = 1024, 4, 512
NEURONS = "MLP neurons"


@dataclass(frozen=True)
class Budget:
    """A size to prune to.

    Attributes:
        name: how the page calls it.
        target: what onnx-subprune is asked for.
        goal: what the metric should reach.
        only: the kind of units that may go; None for all.
        rival: what the rivals are driven to, where they are not asked for the same thing; else `target`.

    """

    name: str
    target: Target
    goal: float | None = None
    only: str | None = None
    rival: Target | None = None

    @property
    def equal(self) -> Target:
        """The share of MACs or parameters at which methods are compared."""
        return self.rival or self.target


@dataclass(frozen=True)
class Opened:
    """A network with its data.

    Attributes:
        model: the dense model.
        shapes: sizes of the inputs to count MACs with.
        calibration: by number of samples and seed; seed 0 takes them in the order of the files.
        evaluate: the metric of a model.

    """

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]]
    calibration: Callable[[int, int], Dataset]
    evaluate: Callable[[onnx.ModelProto], float]

    def cost(self, model: onnx.ModelProto) -> Cost:
        """MACs and parameters of a form of the model."""
        given = {spec.name for spec in input_specs(model)}
        return measure_cost(model, {name: shape for name, shape in self.shapes.items() if name in given})

    def groups(self, chosen: str) -> tuple[str, ...]:
        """Names of the groups of one kind."""
        return tuple(group.name for group in self._prunable() if kind(group) == chosen)

    def inner(self) -> tuple[str, ...]:
        """Names of the groups that one layer makes, which leaves out the residual streams; in blocks, MLP neurons."""
        single = (group for group in self._prunable() if len({use.node.name for use in group.producers}) == 1)
        return tuple(group.name for group in single if kind(group) == NEURONS)

    def _prunable(self) -> tuple[Group, ...]:
        return analyse(self.model, self.shapes).structure.prunable


@dataclass(frozen=True)
class Network:
    """What the page says of a network.

    Attributes:
        title: its name and data.
        metric: what is measured.
        unit: what a calibration sample is, in the plural.
        samples: how many calibrate it in the main table.
        test: how many test samples, where they are counted; else 0.
        batch: samples per calibration run.
        budgets: the sizes.
        opener: called with the cache folder and the number of test samples.
        rising: whether a larger figure is better.
        digits: after the point.

    """

    title: str
    metric: str
    unit: str
    samples: int
    test: int
    batch: int
    budgets: tuple[Budget, ...]
    opener: Callable[[Path, int], Opened]
    rising: bool = True
    digits: int = 1

    def open(self, cache: Path, test: int) -> Opened:
        """Read the model and the data."""
        return self.opener(cache, test)


def kind(group: Group) -> str:
    """Say what the units of a group of a transformer are."""
    if not group.consumers:
        return "query-key pairs"
    if group.entries == 1:
        return NEURONS
    if len({use.node.name for use in group.producers}) > 1:
        return "heads"
    return "value channels" if group.size > group.entries else "queries within groups"


def _chosen(pool: int, count: int, seed: int) -> np.ndarray:
    """Numbers of the samples, int64 [count]: the first ones by seed 0, else without order."""
    if count > pool:
        raise SystemExit(f"expected at most {pool} calibration samples, found {count}; give a smaller --samples")
    return np.arange(count) if seed == 0 else np.random.default_rng(seed).permutation(pool)[:count]


def _classifier(model: onnx.ModelProto, pool: Callable[[], Images], test: Images) -> Opened:
    """A network of images, measured by top-1 in percent; the labels of the pool are not looked at."""
    (spec,) = input_specs(model)
    held: list[np.ndarray] = []

    def calibration(samples: int, seed: int) -> Dataset:
        if not held:
            held.append(pool().inputs)
        return open_data({spec.name: held[0][_chosen(len(held[0]), samples, seed)]}, [spec])

    def evaluate(pruned: onnx.ModelProto) -> float:
        data = open_data({spec.name: test.inputs, "labels": test.labels}, input_specs(pruned))
        return 100 * top1(pruned, data, threads=THREADS).accuracy

    return Opened(model, {spec.name: (1, *test.inputs.shape[1:])}, calibration, evaluate)


def _resnet(depth: int) -> Callable[[Path, int], Opened]:
    def opener(_: Path, test: int) -> Opened:
        model = load_model(data_folder() / "cifar10" / f"resnet{depth}_cifar10_dynamo18.onnx")
        return _classifier(model, lambda: cifar10("train"), cifar10("test", test))

    return opener


def _efficientnet(_: Path, test: int) -> Opened:
    model = load_model(data_folder() / "imagenet" / "efficientnet_lite0_dynamo18.onnx")
    return _classifier(model, _imagenet_pool, _every_other(imagenet_samples(), 1, test))


def _every_other(images: Images, start: int, count: int | None = None) -> Images:
    return Images(images.inputs[start::2][:count], images.labels[start::2][:count])


def _imagenet_pool() -> Images:
    """Imagenette and the images of even number, mixed once for all, so that every prefix has both."""
    halves = (imagenette(), _every_other(imagenet_samples(), 0))
    inputs, labels = (np.concatenate([half[part] for half in halves]) for part in (0, 1))
    order = np.random.default_rng(0).permutation(len(inputs))
    return Images(inputs[order], labels[order])


def _vit(_: Path, test: int) -> Opened:
    model = load_model(data_folder() / "vit" / "vits14_cifar10_98px.stored-fp16.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return _classifier(model, lambda: cifar10_resized("train", 98, 4096), cifar10_resized("test", 98, test))


def _minilm(cache: Path, _: int) -> Opened:
    model = load_model(cache / "minilm.onnx")
    pool, test = (np.load(cache / f"sts-{split}.npz") for split in ("dev", "test"))
    texts = sentences(pool)

    def calibration(samples: int, seed: int) -> Dataset:
        chosen = [texts[number] for number in _chosen(len(texts), samples, seed)]
        return open_data([_tokens(model, ids) for _, ids in by_length(chosen)], input_specs(model))

    def evaluate(pruned: onnx.ModelProto) -> float:
        return 100 * correlation(pruned, test, THREADS)

    shapes = {spec.name: (1, 16) for spec in input_specs(model)}
    return Opened(model, shapes, calibration, evaluate)


def _tokens(model: onnx.ModelProto, ids: np.ndarray) -> dict[str, np.ndarray]:
    """All inputs of an encoder: nothing is padded, and there is one segment."""
    made: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {spec.name: made[spec.name] for spec in input_specs(model)}


def _smollm2(cache: Path, _: int) -> Opened:
    model = load_model(cache / "smollm2.onnx")
    valid, test = (np.load(cache / f"wiki2.{split}.ids.npy") for split in ("valid", "test"))
    windows = calibration_windows(valid, data_folder() / "text" / "smollm2_tokenizer.json", CUT)

    def calibration(samples: int, seed: int) -> Dataset:
        chosen = windows[_chosen(len(windows), samples, seed)]
        return open_tokens(chosen.reshape(-1), input_specs(model), window=CUT)

    def evaluate(pruned: onnx.ModelProto) -> float:
        data = open_tokens(test[: WINDOWS * WINDOW], input_specs(pruned), window=WINDOW)
        return perplexity(pruned, data, threads=THREADS).perplexity

    return Opened(model, {"input_ids": (1, WINDOW)}, calibration, evaluate)


def _macs(share: float, goal: float | None = None) -> Budget:
    return Budget(f"macs={share:g}", Target("macs", share), goal)


def _neurons(kept: float, macs: float, goal: float | None = None) -> Budget:
    """MLP neurons of every layer alike; the rivals are driven to the MACs that are left then."""
    name = f"{NEURONS} -{1 - kept:.0%}"
    return Budget(name, Target("units", kept), goal, NEURONS, Target("macs", macs))


_TOP1 = "top-1 accuracy in percent"
# The encoder blocks have 10,646,784 of the 22,565,376 parameters; nothing else is prunable.
_ENCODER = 1 - 0.3 * 10_646_784 / 22_565_376

NETWORKS: dict[str, Network] = {
    "resnet56": Network(
        "ResNet-56, CIFAR-10",
        f"{_TOP1} on the 10,000 test images",
        "training images",
        2048,
        10000,
        64,
        (_macs(0.7), _macs(0.5, 92.4), _macs(0.3, 90.0)),
        _resnet(56),
        digits=2,
    ),
    "resnet32": Network(
        "ResNet-32, CIFAR-10",
        f"{_TOP1} on the 10,000 test images",
        "training images",
        2048,
        10000,
        64,
        (_macs(0.7), _macs(0.5, 91.0), _macs(0.3)),
        _resnet(32),
        digits=2,
    ),
    "efficientnet": Network(
        "EfficientNet-lite0, ImageNet samples",
        f"{_TOP1} on the 500 sample images of odd number, one for each of 500 classes",
        "images, three quarters of them of ten classes (Imagenette), the rest the sample images of even number",
        2000,
        500,
        16,
        (_macs(0.8, 84.0), _macs(0.6, 75.0)),
        _efficientnet,
    ),
    "vit": Network(
        "ViT-S/14, CIFAR-10",
        f"{_TOP1} on the first 2,000 test images",
        "training images",
        1024,
        2000,
        16,
        (_neurons(0.75, 0.8385), _neurons(0.5, 0.677, 79.0)),
        _vit,
    ),
    "minilm": Network(
        "all-MiniLM-L6-v2, STS benchmark",
        "Spearman correlation x 100 on the 1,379 test pairs",
        "sentences of the development set",
        3000,
        0,
        32,
        (
            Budget("encoder parameters x 0.85", Target("params", (1 + _ENCODER) / 2)),
            Budget("encoder parameters x 0.7", Target("params", _ENCODER), 80.0),
        ),
        _minilm,
    ),
    "smollm2": Network(
        "SmolLM2-135M, WikiText-2",
        f"perplexity on the first {WINDOWS} windows of {WINDOW:,} tokens of the test set, smaller is better",
        f"windows of {CUT} tokens of the validation set, `<unk>` replaced by made-up words",
        64,
        0,
        4,
        (_neurons(0.75, 0.8828, 30.0), _neurons(0.5, 0.7656, 45.0)),
        _smollm2,
        rising=False,
    ),
}


def budget_of(network: str, budget: str) -> Budget:
    """A budget by its name."""
    return next(each for each in NETWORKS[network].budgets if each.name == budget)
