"""Broken models that are handed over in memory: refused in one line, as broken files are, by every function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_subprune as sp

X = {"x": np.ones((8, 4), np.float32)}
OPTIONS = sp.Options(target=sp.Target.parse("macs=0.5"), threads=1)


def sound() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { a = Relu(x) y = Abs(a) }'
    )


def cyclic() -> onnx.ModelProto:
    model = sound()
    model.graph.node[0].input[0] = "y"
    return model


def truncated() -> onnx.ModelProto:
    model = sound()
    model.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1 << 40], raw_data=b"1234")
    return model


def unloaded() -> onnx.ModelProto:
    model = sound()
    tensor = model.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model


def data(model: onnx.ModelProto) -> Any:
    return sp.open_data(X, sp.input_specs(model))


def replayed(model: onnx.ModelProto) -> Any:
    return sp.apply(sp.Plan("0" * 64, "macs=0.5", (), OPTIONS.recovery_options), model, X, OPTIONS)


CALLS: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "analyse": sp.analyse,
    "prune": lambda model: sp.prune(model, X, OPTIONS),
    "apply": replayed,
    "calibrate": lambda model: sp.calibrate(model, X, OPTIONS),
    "factorise": lambda model: sp.factorise(model, X, OPTIONS),
    "top1": lambda model: sp.top1(model, data(model)),
    "fidelity": lambda model: sp.fidelity(sound(), model, data(model)),
    "perplexity": lambda model: sp.perplexity(model, data(model)),
    "bench": lambda model: sp.bench([sound(), model], X),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("broken", "message"), [(cyclic, "order|cycle"), (truncated, "w"), (unloaded, "'w'")])
def test_it_is_refused_in_one_line(call: str, broken: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(sp.ModelError, match=message) as caught:
        CALLS[call](broken())
    assert str(caught.value).startswith(("model 'g' is broken: ", "weight 'w' of model 'g' must be loaded"))
    assert "\n" not in str(caught.value)
