"""Keras networks through tf2onnx: NHWC graphs with Transposes round every convolution."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import applications, layers

from zoo.entries import Entry, Input

__all__ = ["offers"]

OPSET = 17
IMAGE = (64, 64, 3)
Offer = tuple[Entry, Callable[[], onnx.ModelProto]]


def _unet() -> Any:
    x = inputs = keras.Input((32, 32, 3))
    skips = []
    for width in (16, 24):
        x = layers.Conv2D(width, 3, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.SeparableConv2D(32, 3, padding="same", activation="relu")(x)
    for width, skip in zip((24, 16), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(width, 2, strides=2, padding="same")(x)
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(layers.Concatenate()([x, skip]))
    return keras.Model(inputs, layers.Conv2D(4, 1)(x))


def _separable() -> Any:
    x = inputs = keras.Input(IMAGE)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2, use_bias=False)(x)))
    for width in (24, 32):
        shortcut = layers.BatchNormalization()(layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False)(x))
        x = layers.BatchNormalization()(layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x))
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(layers.ReLU()(x))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(layers.BatchNormalization()(x)) + shortcut
    x = layers.ZeroPadding2D(1)(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def _text() -> Any:
    inputs = keras.Input((12,), dtype="int32")
    x = layers.Embedding(50, 24)(inputs)
    x = layers.Conv1D(32, 3, padding="same", activation="relu")(x)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(x)
    x = layers.Dense(32, activation="relu")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def _transformer() -> Any:
    inputs = keras.Input((12, 16))
    x = layers.Dense(32)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, activation="swish")(x)))
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def _mlp() -> Any:
    x = inputs = keras.Input((13,))
    for width in (48, 32):
        x = layers.Dense(width)(x)
        x = layers.Dropout(0.1)(layers.LeakyReLU()(layers.BatchNormalization()(x)))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


_TOP: dict[str, Any] = {"weights": None, "classes": 10, "classifier_activation": None}
MODELS: tuple[tuple[str, str, str, Callable[[], Any], tuple[int, ...]], ...] = (
    ("keras_mobilenet", "classifier", "MobileNet", partial(applications.MobileNet, IMAGE, 0.25, **_TOP), IMAGE),
    ("keras_mobilenet_v2", "classifier", "MobileNetV2", partial(applications.MobileNetV2, IMAGE, 0.35, **_TOP), IMAGE),
    (
        "keras_mobilenet_v3",
        "classifier",
        "MobileNetV3Small",
        partial(applications.MobileNetV3Small, IMAGE, 0.5, minimalistic=False, **_TOP),
        IMAGE,
    ),
    (
        "keras_efficientnet_v2",
        "classifier",
        "EfficientNetV2B0",
        partial(applications.EfficientNetV2B0, input_shape=IMAGE, include_preprocessing=False, **_TOP),
        IMAGE,
    ),
    ("keras_separable", "classifier", "Xception blocks", _separable, IMAGE),
    ("keras_unet", "segmentation", "Conv2DTranspose, SeparableConv2D", _unet, (32, 32, 3)),
    ("keras_lstm", "recurrent", "Bidirectional(LSTM)", _text, (12,)),
    ("keras_transformer", "text encoder", "MultiHeadAttention", _transformer, (12, 16)),
    ("keras_mlp", "tabular", "Dense", _mlp, (13,)),
)


def _randomise(network: Any) -> None:
    """Give every variable values of its own; see `zoo.export.randomise`."""
    generator = np.random.default_rng(0)
    for variable in network.variables:
        values = variable.numpy()
        if values.dtype.kind == "f" and values.size > 1 and np.unique(values).size == 1:
            spread = generator.standard_normal(values.shape) * 0.1
            variable.assign(np.abs(values + spread) if "variance" in variable.path else values + spread)


def _make(build: Callable[[], Any], shape: tuple[int, ...], dtype: str) -> onnx.ModelProto:
    keras.utils.set_random_seed(0)
    network = build()
    _randomise(network)
    signature = [tf.TensorSpec((None, *shape), dtype, name="input")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        call = tf.function(lambda input: network(input, training=False), input_signature=signature)  # noqa: A006
        model, _ = tf2onnx.convert.from_function(call, signature, opset=OPSET, output_path=str(path))
    return model


def offers() -> Iterator[Offer]:
    """Yield the entries."""
    for name, family, title, build, shape in MODELS:
        dtype = "int32" if len(shape) == 1 and name == "keras_lstm" else "float32"
        exporter = f"tf2onnx {version('tf2onnx')}"
        source = {
            "package": "keras",
            "version": version("keras"),
            "class": title,
            "exporter": exporter,
            "opset": str(OPSET),
        }
        inputs = (Input("input", ("batch", *shape), dtype, 50),)
        entry = Entry(f"{name}_tf17", name, family, source, inputs, ({"batch": 2}, {"batch": 3}))
        yield entry, partial(_make, build, shape, dtype)
