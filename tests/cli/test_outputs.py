"""Names of files are checked before the long work: nothing overwrites an input, and no two outputs are one file."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune import report
from onnx_subprune.cli.outputs import check_outputs, check_room, save_outputs, saved_statistics
from onnx_subprune.errors import DataError, OptionError, OutputError
from onnx_subprune.model import atomic_write, together
from onnx_subprune.options import Target

DATA = "out.onnx.0123456789ab.data"


def test_outputs_of_their_own_pass(model: Path, tmp_path: Path) -> None:
    check_outputs({"MODEL": model, "--calib": None}, {"OUT": tmp_path / "out.onnx", "--plan": tmp_path / "plan.json"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense.onnx"], "checking writes nothing"


def test_an_input_is_not_overwritten_by_any_spelling_of_its_name(model: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (model, tmp_path / "folder" / ".." / model.name):
        with pytest.raises(OptionError, match="expected OUT to be another file than MODEL"):
            check_outputs({"MODEL": model}, {"OUT": path})


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected --plan to be another file than OUT"):
        check_outputs({}, {"OUT": tmp_path / "a", "--plan": tmp_path / "a"})


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        check_outputs({}, {"OUT": tmp_path / "nowhere" / "out.onnx"})


@pytest.mark.parametrize(("name", "pages", "allowed"), [
    ("report.html", True, True), ("report.json", True, True), ("report.json", False, True),
    ("report.html", False, False), ("report.txt", True, False),
])  # fmt: skip
def test_a_report_says_by_its_name_what_it_is(tmp_path: Path, name: str, pages: bool, allowed: bool) -> None:
    outputs = {"--report": tmp_path / name}
    if allowed:
        check_outputs({}, outputs, pages=pages)
    else:
        with pytest.raises(OptionError):
            check_outputs({}, outputs, pages=pages)


def test_weights_beside_the_model_are_left_alone(tmp_path: Path) -> None:
    """OUT of a large model has its weights in OUT.<digits>.data: not where MODEL has its own."""
    large = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }'
    )
    large.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w"))
    path = tmp_path / "model.onnx"
    onnx.save(large, path, save_as_external_data=True, location=DATA, size_threshold=0)
    with pytest.raises(OptionError, match=f"found them in '{DATA}'"):
        check_outputs({"MODEL": path}, {"OUT": tmp_path / "out.onnx"})
    check_outputs({"MODEL": path}, {"OUT": tmp_path / "other.onnx"})


def test_statistics_are_asked_for_where_there_is_no_data(tmp_path: Path) -> None:
    assert saved_statistics("data.npz", None) is None
    assert saved_statistics("data.npz", tmp_path / "made later") is None
    assert saved_statistics(None, None, needed=False) is None
    with pytest.raises(OptionError, match="give --calib DATA or --statistics FILE"):
        saved_statistics(None, None)
    with pytest.raises(OptionError, match="found no file"):
        saved_statistics(None, tmp_path / "nothing.safetensors")
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(DataError):
        saved_statistics(None, tmp_path / "other")


def test_statistics_come_back_from_the_file(
    cli: Callable[..., object], model: Path, calib: Path, tmp_path: Path
) -> None:
    path = tmp_path / "statistics.safetensors"
    words = ("prune", model, tmp_path / "out.onnx", "--calib", calib, "--effort", "fast", "--target", "units=0.5")
    assert cli(*words, "--statistics", path).code == 0  # type: ignore[attr-defined]
    statistics = saved_statistics(None, path)
    assert statistics is not None
    assert statistics.grams


@pytest.mark.parametrize("way", ["symlink", "hardlink"])
def test_a_link_is_the_file_that_it_names(model: Path, tmp_path: Path, way: str) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(model) if way == "symlink" else link.hardlink_to(model)
    with pytest.raises(OptionError, match="expected OUT to be another file than MODEL"):
        check_outputs({"MODEL": model}, {"OUT": link})


def test_a_file_of_a_folder_and_a_script_are_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "test_data_set_0"
    folder.mkdir(parents=True)
    (folder / "input_0.pb").touch()
    (tmp_path / "load.py").touch()
    with pytest.raises(OptionError, match=r"than 'test_data_set_0/input_0.pb' of --calib"):
        check_outputs({"--calib": str(tmp_path / "data")}, {"--plan": folder / "input_0.pb"})
    with pytest.raises(OptionError, match="expected --plan to be another file than --calib"):
        check_outputs({"--calib": f"{tmp_path / 'load.py'}:data"}, {"--plan": tmp_path / "load.py"})
    check_outputs({"--calib": str(tmp_path / "data")}, {"--plan": folder / "plan.json"})


def test_where_the_weights_of_a_large_out_go_nothing_else_is(model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    for plan in (tmp_path / DATA, tmp_path / "sub" / ".." / DATA):
        with pytest.raises(OptionError, match=f"expected OUT to leave --plan alone, found it in '{DATA}'"):
            check_outputs({}, {"OUT": out, "--plan": plan})
    (tmp_path / DATA).symlink_to(calib)
    with pytest.raises(OptionError, match=f"expected OUT to leave --calib alone, found it in '{DATA}'"):
        check_outputs({"--calib": str(calib)}, {"OUT": out})
    (tmp_path / DATA).unlink()
    model.rename(tmp_path / DATA)
    with pytest.raises(OptionError, match=f"expected OUT to leave MODEL alone, found it in '{DATA}'"):
        check_outputs({"MODEL": tmp_path / DATA}, {"OUT": out})


def test_weights_of_an_older_out_may_be_replaced(model: Path, tmp_path: Path) -> None:
    for name in (DATA, DATA.replace("0", "1")):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    check_outputs({"MODEL": model}, {"OUT": tmp_path / "out.onnx", "--plan": tmp_path / "sub" / DATA})


def test_what_killed_runs_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "temporary", tmp_path / "outputs"]
    monkeypatch.setattr(tempfile, "tempdir", str(folders[0]))
    for folder in folders:
        (folder / f".onnx-subprune-{'0' * 32}.tmp" / "weights").mkdir(parents=True)
    check_outputs({}, {"--report": folders[1] / "report.json"})
    assert not any(list(folder.iterdir()) for folder in folders)


class Result:
    """A result whose parts note where they are saved, or fail."""

    def __init__(self, saved: list[str], failing: str = "") -> None:
        self.statistics = self.plan = self
        self._saved, self._failing = saved, failing

    def save(self, path: Path) -> None:
        self._saved.append(path.name)
        if path.name == self._failing:
            raise OutputError(f"cannot write '{path}'")
        with atomic_write(path) as temporary:
            temporary.write_text("new")


OUTPUTS = {"OUT": "out.onnx", "--plan": "plan.json", "--statistics": "s.safetensors", "--report": "report.json"}


def test_out_is_the_last_of_all_outputs(tmp_path: Path) -> None:
    saved: list[str] = []
    outputs = {name: tmp_path / file for name, file in OUTPUTS.items()}
    save_outputs(Result(saved), {"a": 1}, outputs)  # type: ignore[arg-type]
    assert saved == ["s.safetensors", "plan.json", "out.onnx"]
    assert '"a": 1' in (tmp_path / "report.json").read_text()
    save_outputs(Result(saved), {}, dict.fromkeys(OUTPUTS))  # type: ignore[arg-type]
    assert len(saved) == 3


@pytest.mark.parametrize("failing", OUTPUTS.values())
def test_if_one_output_fails_none_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    outputs = {name: tmp_path / file for name, file in OUTPUTS.items()}
    for path in outputs.values():
        path.write_text("old")
    if failing == "report.json":
        monkeypatch.setattr(report, "write_report", lambda *_: Result([], failing).save(outputs["--report"]))
    with pytest.raises(OutputError, match=failing), together():
        save_outputs(Result([], failing), {}, outputs)  # type: ignore[arg-type]
    assert {path.read_text() for path in outputs.values()} == {"old"}


def test_a_disk_without_room_for_the_share_that_stays_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out, usage, size = tmp_path / "out.onnx", shutil.disk_usage(tmp_path), model.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size // 2))
    with pytest.raises(OutputError, match=r"expected room for .* or more, found .*; free some"):
        check_room(model, out, Target("params", 0.6))
    with caplog.at_level(logging.WARNING):
        check_room(model, out, Target("params", 0.4))
        # Nobody knows how many parameters stay of so many MACs.
        check_room(model, out, Target("macs", 0.6))
    assert len([record for record in caplog.records if "may need up to" in record.message]) == 2
    check_room(model, None, Target("params", 0.6))


def test_with_room_nothing_is_said(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_room(model, tmp_path / "out.onnx", Target("params", 0.9))
    assert not caplog.records
