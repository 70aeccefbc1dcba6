"""The files in the package: what they hold, how big they are, and that the model is as good as it must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_subprune.demo import Demo, load_demo
from onnx_subprune.demo import bundle as demo
from onnx_subprune.errors import DataError


@pytest.fixture(scope="module")
def loaded() -> Demo:
    return load_demo()


@pytest.fixture(scope="module")
def model(loaded: Demo) -> onnx.ModelProto:
    return onnx.load(loaded.model_path)


def logits(loaded: Demo, images: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(loaded.model_path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def test_files_are_small_enough_to_ship(loaded: Demo) -> None:
    folder = loaded.model_path.parent
    files = [folder / name for name in ("demo.onnx", "demo.npz", "FASHION_MNIST_LICENSE")]
    assert sum(file.stat().st_size for file in files) < 3_000_000


@pytest.mark.parametrize(("part", "count"), [("calibration", 512), ("test", 1000)])
def test_images_are_normalised_float32(loaded: Demo, part: str, count: int) -> None:
    arrays = getattr(loaded, part)
    assert list(arrays) == ["image"]
    images = arrays["image"]
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == np.float32
    assert abs(images.mean()) < 0.05
    assert abs(images.std() - 1) < 0.05


def test_normalisation_maps_black_and_white_as_documented() -> None:
    pixels = np.array([[[0, 255]]], dtype=np.uint8)
    normalised = demo._normalise(pixels, np.float32(0.25), np.float32(0.5))
    np.testing.assert_array_equal(normalised, np.array([[[[-0.5, 1.5]]]], dtype=np.float32))


def test_labels_hold_all_classes_mixed(loaded: Demo) -> None:
    assert loaded.labels.shape == (1000,)
    assert loaded.labels.dtype == np.int64
    assert set(loaded.labels[:100]) == set(range(10))
    assert np.bincount(loaded.labels, minlength=10).min() >= 70


def test_calibration_shares_no_image_with_the_test_set(loaded: Demo) -> None:
    calibration = {image.tobytes() for image in loaded.calibration["image"]}
    assert not calibration & {image.tobytes() for image in loaded.test["image"]}


def test_model_classifies_the_test_images(loaded: Demo) -> None:
    top1 = (logits(loaded, loaded.test["image"]).argmax(axis=1) == loaded.labels).mean()
    assert top1 >= 0.90


def test_batch_axis_is_dynamic(loaded: Demo) -> None:
    images = loaded.test["image"][:5]
    one_by_one = np.concatenate([logits(loaded, image[None]) for image in images])
    np.testing.assert_allclose(logits(loaded, images), one_by_one, rtol=1e-5, atol=1e-5)


def test_model_is_valid_onnx_of_the_promised_versions(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]


def test_model_has_work_for_every_pass(model: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in model.graph.node]
    normalisations = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(normalisations) == kinds.count("Conv") == 11
    assert kinds.count("Add") == 4
    assert "Identity" not in kinds
    assert all(len(node.output) == 1 for node in normalisations)
    assert not any(a.i for node in normalisations for a in node.attribute if a.name == "training_mode")


def test_model_says_nothing_about_the_machine_that_made_it(model: onnx.ModelProto) -> None:
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any("/" in name for node in model.graph.node for name in (node.name, *node.input, *node.output))


def test_missing_file_is_a_data_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo.resources, "files", lambda _: tmp_path)
    with pytest.raises(DataError, match=r"demo\.onnx .* reinstall onnx-subprune"):
        load_demo()
