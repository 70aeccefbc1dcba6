"""Prune, then quantise: that order works, the other is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from onnx_subprune import pipeline
from onnx_subprune.cli import run as cli
from onnx_subprune.demo import load_demo
from onnx_subprune.errors import ModelError
from onnx_subprune.model import open_session, run
from onnx_subprune.options import Options, Target


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Batches of the demo's calibration images, as onnxruntime.quantization reads them."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(images, 8))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the demo model, and what becomes of it: pruned, pruned and quantised, quantised."""
    demo, folder = load_demo(), tmp_path_factory.mktemp("quantised")
    pruned, integer, dynamic, dense = (folder / f"{name}.onnx" for name in ("pruned", "integer", "dynamic", "dense"))
    options = Options.of_effort("fast", target=Target.parse("macs=0.5"))
    pipeline.prune(demo.model_path, demo.calibration, options).save(pruned)
    for source, target in ((pruned, integer), (demo.model_path, dense)):
        quantize_static(
            str(source),
            str(target),
            _Images(demo.calibration["image"][:256]),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    quantize_dynamic(str(pruned), str(dynamic))
    return {"pruned": pruned, "integer": integer, "dynamic": dynamic, "dense": dense}


def _top1(path: Path) -> float:
    demo = load_demo()
    (logits,) = run(open_session(onnx.load(path)), demo.test).values()
    return float((logits.argmax(axis=1) == demo.labels).mean())


def test_a_pruned_model_can_be_quantised(files: dict[str, Path]) -> None:
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(files["integer"]).graph.node)
    assert files["integer"].stat().st_size < 0.6 * files["pruned"].stat().st_size
    assert _top1(files["integer"]) > _top1(files["pruned"]) - 0.01


@pytest.mark.parametrize("kind", ["integer", "dynamic", "dense"])
def test_a_quantised_model_is_refused(files: dict[str, Path], kind: str) -> None:
    demo = load_demo()
    words = r"found none: \d+ nodes \(\d+ .*\) are quantised: .*; prune the float model, then quantise"
    with pytest.raises(ModelError, match=words):
        pipeline.prune(files[kind], demo.calibration)
    with pytest.raises(ModelError, match=words):
        pipeline.calibrate(files[kind], demo.calibration)


def test_the_command_line_says_so_in_one_line(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calib, out = tmp_path / "calib.npz", tmp_path / "out.onnx"
    np.savez(calib, **load_demo().calibration)
    plan = tmp_path / "plan.json"
    pipeline.prune(files["pruned"], load_demo().calibration, Options.of_effort("fast")).plan.save(plan)
    data = ["--calib", calib]
    for words in (
        ["prune", files["dense"], out, *data, "--target", "macs=0.5"],
        ["apply", plan, files["dense"], out, *data],
    ):
        assert cli([str(word) for word in words]) == 1
        said = capfd.readouterr()
        assert "prune the float model, then quantise" in said.err
        assert "Traceback" not in said.err
        assert not out.exists()


def test_inspect_says_in_a_line_that_a_model_is_quantised(
    files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for name, quantised in (("dynamic", True), ("pruned", False)):
        assert cli(["inspect", str(files[name])]) == 0
        words = " ".join(capfd.readouterr().out.split())
        assert ("are quantised: what they touch" in words) == quantised


def test_inspect_gives_the_reason(files: dict[str, Path]) -> None:
    structure = pipeline.analyse(files["dense"]).structure
    reasons = [reason for group in structure.frozen for reason in group.reasons]
    assert not structure.prunable
    assert all("is quantised: prune the float model before quantising" in reason for reason in reasons), reasons
