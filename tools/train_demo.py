"""Train the demo model and write the data files of `onnx_subprune/demo`: demo.onnx and demo.npz.

Set up, once (PyTorch is no dependency of the package, so it gets an environment of its own)::

    apt-get install dataset-fashion-mnist
    python3 -m venv torch-env
    torch-env/bin/pip install --index-url https://download.pytorch.org/whl/cpu torch
    torch-env/bin/pip install numpy onnx onnxscript onnxruntime

Run from the repository root, about ten minutes on two CPU cores::

    torch-env/bin/python tools/train_demo.py

The model is a residual CNN of 0.3 million parameters with a BatchNormalization node after every convolution, two
identity shortcuts and two strided 1x1 ones: what a pruner has to handle, in a file small enough to ship. It is made
wider than Fashion-MNIST needs, as networks in the field are, so that there is something to prune.
The same seed, machine, thread count and PyTorch version give the same files.
"""

from __future__ import annotations

import argparse
import gzip
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT, OUTPUT = "image", "logits"
OPSET, IR_VERSION = 17, 8
# Mean and standard deviation of a training pixel scaled to [0, 1].
MEAN, STD = 0.2860, 0.3530
CALIBRATION_IMAGES, TEST_IMAGES = 512, 1000

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """What the command line sets."""

    data: Path
    out: Path
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    threads: int


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, 28, 28] with their classes uint8 [N]."""

    images: Bytes
    labels: Bytes


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or a strided 1x1 convolution where the shape changes."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width:
            self.shortcut.add_module("conv", nn.Conv2d(width_in, width, 1, stride, bias=False))
            self.shortcut.add_module("bn", nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, width_in, H, W] -> [N, width, H / stride, W / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DemoNet(nn.Module):
    """float32 [N, 1, 28, 28] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.block1 = Block(32, 32, 1)
        self.block2 = Block(32, 64, 2)
        self.block3 = Block(64, 64, 1)
        self.block4 = Block(64, 96, 2)
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] -> [N, 10]."""
        x = functional.max_pool2d(functional.relu(self.bn(self.conv(x))), 2)
        x = self.block4(self.block3(self.block2(self.block1(x))))
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def read_idx(path: Path) -> Bytes:
    """The uint8 array of a gzipped IDX file: magic 0, 0, 8, ndim; ndim big-endian int32 sizes; the bytes."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path}: expected an IDX file of unsigned bytes, found magic {raw[:4]!r}")
    ndim = raw[3]
    shape = np.frombuffer(raw, ">i4", ndim, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def read_split(folder: Path, name: str) -> Split:
    return Split(
        images=read_idx(folder / f"{name}-images-idx3-ubyte.gz"),
        labels=read_idx(folder / f"{name}-labels-idx1-ubyte.gz"),
    )


def normalise(images: Bytes) -> npt.NDArray[np.float32]:
    """uint8 [N, 28, 28] -> float32 [N, 1, 28, 28]; the arithmetic of `onnx_subprune.demo.load_demo`."""
    scaled = images[:, None].astype(np.float32) / np.float32(255)
    return (scaled - np.float32(MEAN)) / np.float32(STD)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images; move the whole batch by up to two pixels each way."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
    return functional.pad(images, (2, 2, 2, 2), value=-MEAN / STD)[..., top : top + 28, left : left + 28]


def train(split: Split, options: Options) -> DemoNet:
    """One-cycle SGD with Nesterov momentum on the smoothed cross-entropy."""
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    net = DemoNet().to(memory_format=torch.channels_last)  # a fifth faster on CPUs
    images, labels = torch.from_numpy(normalise(split.images)), torch.from_numpy(split.labels.astype(np.int64))
    steps = len(images) // options.batch_size
    optimizer = torch.optim.SGD(
        net.parameters(), lr=options.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, epochs=options.epochs, steps_per_epoch=steps, pct_start=0.25
    )
    started = time.monotonic()
    for epoch in range(options.epochs):
        total = 0.0
        for rows in torch.randperm(len(images), generator=generator)[: steps * options.batch_size].view(steps, -1):
            logits = net(augment(images[rows], generator))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{options.epochs}: loss {total / steps:.4f}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return net.to(memory_format=torch.contiguous_format).eval()


def export(net: DemoNet, path: Path) -> None:
    """Write the network in inference mode with its BatchNormalization nodes kept."""
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, 28, 28),),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
        opset_version=OPSET,
        dynamo=False,
        # EVAL would fold the BatchNorms away; PRESERVE keeps the modes the modules are in.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    model = onnx.load(path)
    model.ir_version = IR_VERSION
    clean(model.graph)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def clean(graph: onnx.GraphProto) -> None:
    """Name nodes and tensors after the modules (`block1.conv1`), and check that no node is in training mode."""
    graph.name = "fashion_mnist_demo"
    renamed = {}
    for node in graph.node:
        if any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute):
            raise SystemExit(f"node {node.name!r} is in training mode")
        node.name = node.name.strip("/").replace("/", ".")
        if node.op_type in ("Conv", "BatchNormalization", "Gemm"):  # the only one of its module
            node.name = node.name.removesuffix(f".{node.op_type}")
        renamed |= {name: f"{node.name}.out" for name in node.output if name != OUTPUT}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    del graph.value_info[:]
    untie(graph)


def untie(graph: onnx.GraphProto) -> None:
    """Give each BatchNormalization parameters of its own.

    The exporter stores equal tensors once and hands out copies through Identity nodes; the biases of two BatchNorms
    whose outputs are added are equal, for they start at zero and get the same gradient.
    """
    weights = {weight.name: weight for weight in graph.initializer}
    shared = {node.output[0]: weights[node.input[0]] for node in graph.node if node.op_type == "Identity"}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            for position, role in enumerate(("weight", "bias", "running_mean", "running_var"), start=1):
                if node.input[position] in shared:
                    copy = graph.initializer.add()
                    copy.CopyFrom(shared[node.input[position]])
                    copy.name = node.input[position] = f"{node.name}.{role}"
    kept = [node for node in graph.node if node.op_type != "Identity"]
    del graph.node[:]
    graph.node.extend(kept)


def save_data(path: Path, train_split: Split, test_split: Split, seed: int) -> Split:
    """Write unlabelled calibration images and a labelled part of the test set; returns the latter."""
    generator = np.random.default_rng(seed)
    calibration = np.sort(generator.permutation(len(train_split.images))[:CALIBRATION_IMAGES])
    rows = generator.permutation(len(test_split.images))[:TEST_IMAGES]
    part = Split(test_split.images[rows], test_split.labels[rows])
    np.savez_compressed(
        path,
        calibration=train_split.images[calibration],
        test=part.images,
        labels=part.labels,
        mean=np.float32(MEAN),
        std=np.float32(STD),
    )
    return part


def accuracy(path: Path, split: Split) -> float:
    """Top-1 of the written file in ONNX Runtime."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    correct = 0
    for start in range(0, len(split.images), 500):
        (logits,) = session.run([OUTPUT], {INPUT: normalise(split.images[start : start + 500])})
        correct += int((logits.argmax(axis=1) == split.labels[start : start + 500]).sum())
    return correct / len(split.images)


def parse_options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="IDX .gz files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "onnx_subprune" / "demo")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.1, help="peak of the cycle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return Options(**vars(parser.parse_args()))


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    train_split, test_split = read_split(options.data, "train"), read_split(options.data, "t10k")
    net = train(train_split, options)
    model_path, data_path = options.out / "demo.onnx", options.out / "demo.npz"
    export(net, model_path)
    embedded = save_data(data_path, train_split, test_split, options.seed)
    print(f"parameters: {sum(p.numel() for p in net.parameters())}")
    print(
        f"top-1: {accuracy(model_path, test_split):.4f} of 10,000, {accuracy(model_path, embedded):.4f} of the demo's"
    )
    print(f"bytes: {model_path.stat().st_size} model, {data_path.stat().st_size} data")


if __name__ == "__main__":
    main()
