"""Bad input ends in one line that says what was expected, what was found and what to do; nothing is written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune import pipeline

Cli = Callable[..., Any]
RNG = np.random.default_rng(0)
GOOD = RNG.standard_normal((64, 3, 6, 6)).astype(np.float32)


def with_nan() -> np.ndarray:
    bad = GOOD.copy()
    bad[7, 1, 2, 3] = np.nan
    return bad


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Callable[..., str]:
    """`refused(words, ...)` checks the exit code and that nothing was written, and returns the one line."""

    def refused(*words: object, code: int = 1) -> str:
        before = snapshot(tmp_path)
        said = cli(*words)
        assert said.code == code, said.err
        assert said.out == ""
        assert snapshot(tmp_path) == before
        line = said.error
        assert line.startswith("error: ")
        return line

    return refused


@pytest.mark.parametrize("command", ["inspect", "prune", "eval", "bench", "apply"])
@pytest.mark.parametrize("kind", ["missing", "text", "empty", "folder"])
def test_a_model_that_is_none(refused: Cli, model: Path, calib: Path, tmp_path: Path, command: str, kind: str) -> None:
    path = tmp_path / "model.onnx"
    plan = tmp_path / "plan.json"
    plan.write_text(pipeline_plan(model))
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("this is not a model\n" if kind == "text" else "")
    out = tmp_path / "out.onnx"
    words: Mapping[str, tuple[object, ...]] = {
        "inspect": (path,),
        "prune": (path, out, "--calib", calib, "--target", "macs=0.5"),
        "eval": (path, "--data", calib),
        "bench": (path,),
        "apply": (plan, path, out, "--calib", calib),
    }
    line = refused(command, *words[command])
    found = {"missing": "does not exist", "text": "not an ONNX model", "empty": "is empty", "folder": "found a folder"}
    assert f"model '{path}'" in line
    assert found[kind] in line


def pipeline_plan(model: Path) -> str:
    data = {"x": GOOD}
    return pipeline.prune(model, data, pipeline.Options(recovery="none")).plan.to_json()


@pytest.mark.parametrize(
    ("arrays", "fragments"),
    [
        ({"y": GOOD}, ["input 'x' expected", "found 'y'", "name the arrays 'x'"]),
        ({"x": GOOD, "z": GOOD}, ["'x'", "found 'z' too", "remove or rename"]),
        ({"x": GOOD[:, :2]}, ["shape [?, 3, 6, 6]", "found [64, 2, 6, 6]"]),
        ({"x": GOOD[0]}, ["shape [?, 3, 6, 6]", "found [3, 6, 6]"]),
        ({"x": with_nan()}, ["finite values expected", "found nan in sample 7"]),
        ({"x": with_nan() * np.inf}, ["finite values expected", "found "]),
        ({"x": GOOD[:0]}, ["at least one sample expected", "found none"]),
        ({"x": (GOOD * 20).astype(np.uint8)}, ["dtype float32", "found uint8", "normalise"]),
        ({"labels": np.arange(64)}, ["input 'x' expected", "found nothing else"]),
    ],
)
@pytest.mark.parametrize("command", ["prune", "eval"])
def test_data_that_does_not_fit(
    refused: Cli, model: Path, tmp_path: Path, command: str, arrays: dict[str, np.ndarray], fragments: list[str]
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **{"labels": np.arange(len(next(iter(arrays.values())))) % 4, **arrays})
    words = ("--calib", data, "--target", "macs=0.5") if command == "prune" else ("--data", data)
    line = refused(command, model, *([tmp_path / "out.onnx"] if command == "prune" else []), *words)
    assert str(data) in line
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("missing.npz", None, "found nothing there"),
        ("text.npz", "no archive", "plain arrays expected"),
        ("data.csv", "1,2,3", "convert it"),
        ("load.py:nothing", None, "a Python file expected"),
    ],
)
def test_data_that_is_none(
    refused: Cli, model: Path, tmp_path: Path, name: str, content: str | None, fragment: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    line = refused("prune", model, tmp_path / "out.onnx", "--calib", tmp_path / name, "--target", "macs=0.5")
    assert fragment in line
    assert name.split(":", maxsplit=1)[0] in line


@pytest.mark.parametrize(
    ("target", "fragments"),
    [
        ("macs=0", ["above 0 and at most 1", "found macs=0", "macs=0.5"]),
        ("macs=1.5", ["above 0 and at most 1", "found macs=1.5"]),
        ("macs=-1", ["above 0 and at most 1", "found macs=-1"]),
        ("macs=nan", ["above 0 and at most 1", "found macs=nan"]),
        ("macs", ["such as macs=0.5", "'macs' without '='"]),
        ("macs=half", ["such as macs=0.5", "found 'macs=half'"]),
        ("speed=0.5", ["macs, params, latency, units, variance", "found 'speed'"]),
        ("=0.5", ["macs, params, latency, units, variance", "found ''"]),
    ],
)
def test_a_target_that_is_none(
    refused: Cli, model: Path, calib: Path, tmp_path: Path, target: str, fragments: list[str]
) -> None:
    line = refused("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", target)
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (("--ignore", "layer9*"), ["'layer9*'", "found none", "first"]),
        (("--only", "layer9*"), ["'layer9*'", "found none", "first"]),
        (("--select", "best"), ["zca", "magnitude", "found 'best'"]),
        (("--recovery", "full"), ["exact, channel, none", "found 'full'"]),
        (("--round-to", "0"), ["round-to", "1 or more", "found 0"]),
        (("--batch-size", "0"), ["batch-size", "1 or more", "found 0"]),
        (("--samples", "0"), ["samples", "1 or more", "found 0"]),
        (("--ridge", "-1"), ["ridge of 0 or more", "found -1"]),
        (("--ridge", "nan"), ["ridge of 0 or more", "found nan"]),
        (("--threads", "0"), ["threads", "1 or more", "found 0"]),
        (("--providers", "gpu"), ["'gpu'", "CPUExecutionProvider"]),
        (("--input-shapes", "x=1,3"), ["x:1,3,224,224", "found 'x=1,3'"]),
        (("--input-shapes", "y:1,3"), ["'y'", "inputs are: x"]),
        (("--input-shapes", "x:1,3"), ["'x'", "found 1,3"]),
        (("--report", "report.pdf"), ["FILE.html or FILE.json", "found 'report.pdf'"]),
    ],
)
def test_an_option_that_cannot_be(
    refused: Cli, model: Path, calib: Path, tmp_path: Path, words: tuple[str, ...], fragments: list[str]
) -> None:
    line = refused("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", "macs=0.5", *words)
    for fragment in fragments:
        assert fragment in line


def test_neither_data_nor_statistics(refused: Cli, model: Path, tmp_path: Path) -> None:
    words = ("prune", model, tmp_path / "out.onnx", "--target", "macs=0.5")
    assert "give --calib DATA or --statistics FILE" in refused(*words)
    assert "found no file; give --calib" in refused(*words, "--statistics", tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    assert "found something else" in refused(*words, "--statistics", tmp_path / "text.safetensors")


def test_statistics_of_another_model(cli: Cli, refused: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    statistics = tmp_path / "s.safetensors"
    words = ("--target", "macs=0.5", "--statistics", statistics)
    assert cli("prune", model, tmp_path / "out.onnx", "--calib", calib, *words).code == 0
    other = onnx.load(model)
    other.graph.initializer[1].raw_data = np.ones(8, np.float32).tobytes()
    onnx.save(other, tmp_path / "other.onnx")
    assert "statistics of this model" in refused("prune", tmp_path / "other.onnx", tmp_path / "2.onnx", *words)


def test_a_plan_that_is_none_or_of_another_model(
    cli: Cli, refused: Cli, model: Path, calib: Path, tmp_path: Path
) -> None:
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    assert "found: No such file" in refused("apply", plan, model, out, "--calib", calib)
    plan.write_text("text")
    assert "found other content" in refused("apply", plan, model, out, "--calib", calib)
    plan.write_text('{"format": "onnx_subprune.plan/1"}')
    assert "damaged entry" in refused("apply", plan, model, out, "--calib", calib)
    assert cli("prune", model, out, "--calib", calib, "--target", "macs=0.5", "--plan", plan).code == 0
    assert "found nothing; give --calib" in refused("apply", plan, model, tmp_path / "2.onnx")
    words = ("--recovery", "channel", "--plan", plan, "--target", "macs=0.5")
    assert cli("prune", model, out, "--calib", calib, *words).code == 0
    assert "give --calib DATA or --statistics" in refused("apply", plan, model, tmp_path / "2.onnx")
    pruned = refused("apply", plan, out, tmp_path / "2.onnx", "--calib", calib)
    assert "expected the model that the plan was made for" in pruned


@pytest.mark.parametrize(
    ("place", "fragments"),
    [
        ("missing/out.onnx", ["does not exist", "create it first"]),
        ("dense.onnx/out.onnx", ["dense.onnx'"]),
        (".", ["it is a folder", "name a file in it"]),
        ("/proc/out.onnx", ["cannot write '/proc/out.onnx'"]),
        ("/dev/null", ["not a regular file"]),
        ("n" * 300 + ".onnx", ["cannot write", "name too long"]),
    ],
)
@pytest.mark.parametrize("option", ["OUT", "--plan", "--statistics"])
def test_a_place_that_cannot_be_written(
    refused: Cli,
    model: Path,
    calib: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    place: str,
    fragments: list[str],
) -> None:
    monkeypatch.setattr(pipeline, "prune", lambda *_, **__: pytest.fail("the long work had started"))
    target = tmp_path / place
    out = target if option == "OUT" else tmp_path / "out.onnx"
    more = () if option == "OUT" else (option, target)
    line = refused("prune", model, out, "--calib", calib, "--target", "macs=0.5", *more)
    for fragment in fragments:
        assert fragment.lower() in line.lower()


def test_a_demo_folder_that_cannot_be_made(refused: Cli, tmp_path: Path, model: Path) -> None:
    assert "cannot make the folder" in refused("demo", "--out", model)
    assert "cannot make the folder" in refused("demo", "--out", tmp_path / "missing" / "demo")
    assert "/proc" in refused("demo", "--out", "/proc/demo")


@pytest.mark.parametrize("spelling", ["dense.onnx", "sub/../dense.onnx", "link.onnx"])
def test_out_is_the_model(refused: Cli, model: Path, calib: Path, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.onnx").symlink_to(model)
    line = refused("prune", model, tmp_path / spelling, "--calib", calib, "--target", "macs=0.5")
    assert "expected OUT to be another file than MODEL" in line


def test_two_outputs_in_one_place(refused: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", "macs=0.5")
    assert "expected --plan to be another file than OUT" in refused(*words, "--plan", tmp_path / "out.onnx")
    assert "expected --statistics to be another file than --calib" in refused(*words, "--statistics", calib)


def test_a_dry_run_that_is_to_write(refused: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("prune", model, "--dry-run", "--calib", calib, "--target", "macs=0.5")
    assert "found --plan too" in refused(*words, "--plan", tmp_path / "plan.json")


def test_an_unreachable_target_names_the_nearest_that_can_be_reached(
    cli: Cli, refused: Cli, model: Path, calib: Path, tmp_path: Path
) -> None:
    words = ("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target")
    line = refused(*words, "macs=0.001", code=3)
    nearest = re.search(r"ask for (macs=[\d.]+) or more", line)
    assert nearest, line
    assert cli(*words, nearest[1]).code == 0


def test_labels_that_are_missing_or_no_classes(refused: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    assert "labels expected for top-1, found none" in refused("eval", model, "--data", calib)
    np.savez(tmp_path / "many.npz", x=GOOD, labels=np.full(64, 4))
    assert "labels expected from 0 to 3" in refused("eval", model, "--data", tmp_path / "many.npz")
    np.savez(tmp_path / "few.npz", x=GOOD, labels=np.zeros(3, np.int64))
    assert "a label for each of 64" in refused("eval", model, "--data", tmp_path / "few.npz")


def test_a_metric_that_cannot_be(refused: Cli, model: Path, calib: Path) -> None:
    assert "top1, fidelity" in refused("eval", model, "--data", calib, "--metric", "best")
    assert "found one model" in refused("eval", model, "--data", calib, "--metric", "fidelity")


def test_models_that_cannot_be_timed_together(refused: Cli, model: Path, tmp_path: Path) -> None:
    other = onnx.load(model)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(other, tmp_path / "fixed.onnx")
    assert "found 2 in input 'x'" in refused("bench", tmp_path / "fixed.onnx", "--batch", 4)
    assert "found 0" in refused("bench", model, "--batch", 0)
    assert "found 1 models, 0 runs" in refused("bench", model, "--runs", 0)
    for name in (other.graph.input[0], other.graph.node[0]):
        if isinstance(name, onnx.NodeProto):
            name.input[0] = "image"
        else:
            name.name = "image"
    onnx.save(other, tmp_path / "other.onnx")
    assert "expected to take the inputs of the first" in refused("bench", model, tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["prone"], "prune"),
        (["prune", "m.onnx", "o.onnx", "--calib", "c.npz", "--traget", "macs=0.5"], "--target"),
        (["prune", "m.onnx", "o.onnx", "--calib", "c.npz"], "--target"),
        (["prune", "m.onnx", "--calib", "c.npz", "--target", "macs=0.5"], "OUT"),
        (["prune"], "MODEL"),
        (["prune", "m.onnx", "o.onnx", "--target", "macs=0.5", "--samples", "many"], "--samples"),
        (["prune", "m.onnx", "o.onnx", "--target", "macs=0.5", "--seed", "-1"], "--seed"),
        (["eval"], "MODEL"),
        (["doctor", "extra"], "extra"),
    ],
)
def test_a_command_line_that_is_not_understood(cli: Cli, words: list[str], fragment: str) -> None:
    said = cli(*words)
    assert said.code == 2
    assert said.out == ""
    assert fragment in said.err
    assert "Traceback" not in said.err


def test_a_full_disk_leaves_the_old_file(
    refused: Cli, cli: Cli, model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out.onnx"
    words = ("prune", model, out, "--calib", calib, "--target")
    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refused(*words, "macs=0.5")
    monkeypatch.undo()
    assert cli(*words, "macs=0.5").code == 0
    monkeypatch.setattr(os, "fsync", full)
    assert f"cannot write '{out}'" in refused(*words, "macs=0.4")


def test_a_report_on_a_full_disk(
    cli: Cli, model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    report = tmp_path / "report.json"
    words = ("--calib", calib, "--target", "macs=0.5", "--report", report)
    said = cli("prune", model, tmp_path / "out.onnx", *words)
    assert said.code == 1
    assert "cannot write the report" in said.error
    assert not report.exists()


def test_a_bug_is_one_line_and_a_traceback_only_when_asked_for(
    cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr(pipeline, "analyse", broken)
    said = cli("inspect", model)
    assert said.code == 1
    line = "internal error: ZeroDivisionError: a bug of two lines; run with -v for the traceback\n"
    assert said.err == line
    verbose = cli("inspect", model, "-v")
    assert verbose.code == 1
    assert "Traceback" in verbose.err
    assert verbose.err.endswith(line)


def test_ctrl_c_is_one_line(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "analyse", interrupted)
    said = cli("inspect", model)
    assert said.code == 130
    assert said.err.startswith("interrupted")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["doctor", "--help"])
def test_a_missing_runtime_is_one_line(command: str) -> None:
    script = f"""
import sys
sys.modules["onnxruntime"] = None
from onnx_subprune.cli import run
sys.exit(run([{command!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: expected a working ONNX Runtime, found none")
    assert "onnx-subprune[cpu]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_doctor_refuses_two_runtimes_in_one_place(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version
    both = ("onnxruntime", "onnxruntime-gpu")
    monkeypatch.setattr(metadata, "version", lambda name: "1.23.0" if name in both else installed(name))
    said = cli("doctor")
    assert said.code == 1
    assert "onnxruntime and onnxruntime-gpu" in said.error
    assert "pip uninstall onnxruntime onnxruntime-gpu" in said.error
    assert "CPUExecutionProvider" in said.out
