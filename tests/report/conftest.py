"""A small network that was pruned and measured, and a headless browser."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from browser import Browser, find_chromium, start

from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Result, prune


@pytest.fixture(scope="session")
def model() -> onnx.ModelProto:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        two (float[N, 6] x) => (float[N, 2] y) { a = MatMul(x, w1)  b = Relu(a)  y = MatMul(b, w2) }
    """)
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (6, 10)), ("w2", (10, 2))):
        values = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for node, name in zip(proto.graph.node, ("first", "relu", "second"), strict=True):
        node.name = name
    return proto


@pytest.fixture(scope="session")
def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((200, 6)).astype(np.float32)}


@pytest.fixture(scope="session")
def result(model: onnx.ModelProto, data: dict[str, np.ndarray]) -> Result:
    return prune(model, data, Options(target=Target.parse("units=0.5"), threads=1))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run Chromium; where there is none, the tests are skipped, and a warning says so."""
    chromium = find_chromium()
    if chromium is None:
        message = "NO CHROMIUM: the report was not looked at in a browser; `make browser` installs one"
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    with start(chromium, tmp_path_factory.mktemp("chromium")) as running:
        yield running
