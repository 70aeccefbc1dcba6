"""Speed on an NVIDIA GPU. Where the CUDA provider does not load, these tests are skipped and say so."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_subprune.cli import run as run_command
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate import bench, peak_memory, profile
from onnx_subprune.evaluate.binding import device_of, runner
from onnx_subprune.model import open_session, run

CUDA = "CUDAExecutionProvider"

# NonZero and what asks for its size run on the CPU or wait for it; the rest is the GPU's.
NETWORK = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 256] x) => (float[N, 256] y, int64[r, k] found)
    {
        h = MatMul(x, w)
        a = Relu(h)
        y = MatMul(a, w)
        found = NonZero(y)
    }
"""
FEEDS = {"x": np.random.default_rng(1).standard_normal((64, 256)).astype(np.float32)}


def network() -> onnx.ModelProto:
    model = onnx.parser.parse_model(NETWORK)
    weight = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32) / 16
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


@pytest.fixture(scope="module")
def cuda() -> str:
    """Return the name of the provider if it loads on this machine."""
    try:
        open_session(network(), ["cuda"])
    except OptionError as error:
        message = f"NO CUDA HERE, speed on a GPU was not tested: {error}"
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return "cuda"


def test_it_really_runs_there(cuda: str) -> None:
    found = bench([network(), network()], FEEDS, runs=20, providers=[cuda, "cpu"])
    assert [one.providers[0] for one in found] == [CUDA, CUDA]
    assert found[1].ratio_interval is not None


def test_buffers_are_on_the_device_and_give_the_same(cuda: str) -> None:
    session = open_session(network(), [cuda, "cpu"])
    assert device_of(session) == "cuda"
    expected = run(session, FEEDS)
    binding = session.io_binding()
    for name, array in FEEDS.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    binding.bind_output("y", "cuda")
    binding.bind_output("found", "cuda")
    session.run_with_iobinding(binding)
    assert binding.get_outputs()[0].device_name() == "cuda"
    np.testing.assert_allclose(binding.get_outputs()[0].numpy(), expected["y"], rtol=1e-3, atol=1e-3)
    runner(session, FEEDS)()


def test_without_transfers_a_run_is_not_slower(cuda: str) -> None:
    feeds = {"x": np.zeros((1 << 16, 256), np.float32)}
    (copied,), (bound,) = (bench([network()], feeds, runs=20, providers=[cuda], bound=b) for b in (False, True))
    assert bound.median_ms < copied.median_ms


def test_the_profile_names_providers(cuda: str) -> None:
    found = profile(network(), FEEDS, providers=[cuda, "cpu"])
    assert found.providers[0] == CUDA
    assert CUDA in {node.provider for node in found.nodes}
    assert all(node.provider != CUDA for node in found.fallen)


def test_memory_of_the_host(cuda: str) -> None:
    found = peak_memory(network(), FEEDS, providers=[cuda])
    assert 0 <= found.held <= found.peak


def test_the_command_says_what_ran(cuda: str, tmp_path: Path, capsys: Callable[..., Any]) -> None:
    onnx.save(network(), tmp_path / "m.onnx")
    path = str(tmp_path / "m.onnx")
    assert run_command(["bench", path, path, "--providers", "cuda,cpu", "--runs", "10", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)  # type: ignore[attr-defined]
    (first, _) = said["batches"][0]["models"]
    assert first["providers"][0] == CUDA
    assert first["profile"]["fallen"] == sum(node["provider"] != CUDA for node in first["profile"]["nodes"])
