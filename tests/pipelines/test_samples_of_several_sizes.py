"""Samples of several sizes, in every form that data has: calibrated, pruned, recovered and measured as others are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune import Options, Target, calibrate, fidelity, open_data, prune, top1
from onnx_subprune.model import input_specs, open_session, run

SIZES = ((8, 8), (12, 10), (8, 8), (6, 14), (12, 10))
RNG = np.random.default_rng(0)
IMAGES = [RNG.standard_normal((3, *SIZES[number % 5])).astype(np.float32) for number in range(40)]
NETWORK = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[N, 3, h, w] x) => (float[N, 4] y) {
    c = Conv<pads = [1, 1, 1, 1]>(x, first)
    r = Relu(c)
    d = Conv<strides = [2, 2]>(r, second)
    s = Relu(d)
    p = GlobalAveragePool(s)
    f = Flatten(p)
    y = Gemm<transB = 1>(f, head)
}
"""


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in {"first": (12, 3, 3, 3), "second": (16, 12, 3, 3), "head": (4, 16)}.items():
        weight = RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
    return model


@pytest.fixture(scope="module")
def labels(network: onnx.ModelProto) -> np.ndarray:
    """Return the classes that the dense network gives, one image at a time."""
    session = open_session(network)
    return np.array([run(session, {"x": image[None]})["y"].argmax() for image in IMAGES])


class Reader:
    def __init__(self) -> None:
        self.images = iter(IMAGES)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(({"x": image[None]} for image in self.images), None)


def folder_of_npz(folder: Path) -> Path:
    for number, image in enumerate(IMAGES):
        np.savez(folder / f"{number:02}.npz", x=image)
    return folder


def folder_of_npy(folder: Path) -> Path:
    for number, image in enumerate(IMAGES):
        np.save(folder / f"{number:02}.npy", image[None])
    return folder


def onnx_sets(folder: Path) -> Path:
    for number, image in enumerate(IMAGES):
        inner = folder / f"test_data_set_{number}"
        inner.mkdir()
        (inner / "input_0.pb").write_bytes(numpy_helper.from_array(image[None]).SerializeToString())
    return folder


def script(folder: Path) -> str:
    folder_of_npy(folder)
    (folder / "load.py").write_text(
        "import numpy as np, pathlib\n"
        "def load_data():\n"
        "    for path in sorted(pathlib.Path(__file__).parent.glob('*.npy')):\n"
        "        yield {'x': np.load(path)}\n"
    )
    return f"{folder / 'load.py'}:load_data"


def objects(_: Path) -> dict[str, np.ndarray]:
    column = np.empty(len(IMAGES), object)
    column[:] = IMAGES
    return {"x": column}


FORMS: dict[str, Callable[[Path], Any]] = {
    "list of samples": lambda _: [{"x": image} for image in IMAGES],
    "dict of lists": lambda _: {"x": IMAGES},
    "array of objects": objects,
    "generator": lambda _: ({"x": image} for image in IMAGES),
    "function": lambda _: lambda: [{"x": image[None]} for image in IMAGES],
    "reader": lambda _: Reader(),
    "folder of npz": folder_of_npz,
    "folder of npy": folder_of_npy,
    "ONNX test data sets": onnx_sets,
    "script": script,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_moments_are_those_of_the_samples_one_by_one(form: str, network: onnx.ModelProto, tmp_path: Path) -> None:
    batched = calibrate(network, FORMS[form](tmp_path), Options(recovery="channel", batch_size=4))
    single = calibrate(network, [{"x": image[None]} for image in IMAGES], Options(recovery="channel", batch_size=1))
    assert (batched.samples, set(batched.grams)) == (len(IMAGES), set(single.grams))
    for key, gram in single.grams.items():
        assert batched.grams[key].count == gram.count
        np.testing.assert_allclose(batched.grams[key].matrix, gram.matrix, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("target", ["macs=0.6", "drop=0.2"])
def test_it_is_pruned_and_recovered(target: str, network: onnx.ModelProto, labels: np.ndarray) -> None:
    options = Options(target=Target.parse(target), threads=1, batch_size=4)
    result = prune(network, {"x": IMAGES}, options, evaluation={"x": IMAGES, "labels": labels})
    assert result.fit is not None
    assert result.pruned.macs < 0.7 * result.dense.macs


def test_the_form_of_the_data_makes_no_difference(network: onnx.ModelProto) -> None:
    options = Options(target=Target.parse("macs=0.6"), threads=1, batch_size=4)
    first, second = (
        prune(network, data, options).model.SerializeToString() for data in ({"x": IMAGES}, [{"x": x} for x in IMAGES])
    )
    assert first == second


def test_labels_and_outputs_are_compared_sample_by_sample(network: onnx.ModelProto, labels: np.ndarray) -> None:
    data = open_data({"x": IMAGES, "labels": labels}, input_specs(network))
    assert top1(network, data, batch_size=4).accuracy == 1
    assert np.unique(labels).size > 1
    measured = fidelity(network, network, data, batch_size=4)
    assert (measured.samples, measured.relative_l2) == (len(IMAGES), 0)
