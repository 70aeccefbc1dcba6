"""A file that is replaced is there whole or not at all, and nothing is left beside it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import Gram, Statistics
from onnx_subprune.errors import OutputError
from onnx_subprune.latency.cache import Record
from onnx_subprune.model import atomic
from onnx_subprune.model.atomic import atomic_write, check_regular, probe_writable, together
from onnx_subprune.plan import Plan
from onnx_subprune.report import write_json


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent.parent == tmp_path
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def write_half() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_step_after_the_replacement_sees_the_new_file_and_its_errors_are_passed_over(tmp_path: Path) -> None:
    target, seen = tmp_path / "file", list[str]()

    def look() -> None:
        seen.append(target.read_text())
        raise OSError("no")

    with atomic_write(target, after=look) as temporary:
        temporary.write_text("whole")
    assert seen == ["whole"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_another_process_holds_is_waited_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_LONGEST_WAIT", 0.05)
    called: list[None] = []
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with atomic_write(tmp_path / "file", after=lambda: called.append(None)) as temporary:
        temporary.write_text("whole")
    os.close(held)
    assert (tmp_path / "file").read_text() == "whole"
    assert called == []


def test_files_take_their_names_together_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda one, other: (order.append(Path(other).name), replace(one, other)))
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("sub")
    with together():
        for name in ("plan", "sub/report", "link/more", "out"):
            with together(), atomic_write(tmp_path / name) as temporary:
                temporary.write_text(name)
        assert not order
    assert order == ["plan", "report", "more", "out"]
    assert names(tmp_path) == ["link", "out", "plan", "sub", "sub/more", "sub/report"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_group_that_is_left_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "plan").write_text("old")

    def leave() -> None:
        with together():
            with atomic_write(tmp_path / "plan") as temporary:
                temporary.write_text("new")
            raise error

    with pytest.raises(error):
        leave()
    assert (tmp_path / "plan").read_text() == "old"
    assert names(tmp_path) == ["plan"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_if_one_file_cannot_take_its_name_none_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, error: BaseException
) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target.name == "out" and source.name == "whole":
            if isinstance(error, OSError):
                error.filename, error.filename2 = str(source), str(target)
            raise error
        replace(source, target)

    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refuse)
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    def write() -> None:
        with together():
            for name in ("old", "link", "new", "out"):
                with atomic_write(tmp_path / name) as temporary:
                    temporary.write_text("changed")

    with pytest.raises((OutputError, KeyboardInterrupt), match=r"all outputs are left as they were|^$"):
        write()
    assert names(tmp_path) == ["link", "old"]
    assert (tmp_path / "old").read_text() == "old"
    assert (tmp_path / "link").is_symlink()


def test_the_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("text")
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_no_two_temporary_files_have_one_name(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as one, atomic_write(tmp_path / "file") as other:
        assert one != other
    assert (tmp_path / "file").exists()


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file"):
        pass
    (tmp_path / "other").touch()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_folder_is_probed_without_a_trace(tmp_path: Path) -> None:
    probe_writable(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        probe_writable(tmp_path / "missing" / "file")
    with pytest.raises(OSError, match="File name too long"):
        probe_writable(tmp_path / ("n" * 256))


def test_a_name_that_cannot_be_taken_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    target = tmp_path / "file"
    target.write_text("old")
    probe_writable(target)
    monkeypatch.setattr(os, "link", elsewhere)
    with pytest.raises(OSError, match="a mount of its own, which cannot be replaced"):
        probe_writable(target)
    assert names(tmp_path) == ["file"]


def _plan(path: Path) -> None:
    Plan("f", "macs=0.5", ()).save(path)


def _statistics(path: Path) -> None:
    Statistics({"x": Gram(1, np.eye(3)[None])}, 1, "f").save(path)


def _report(path: Path) -> None:
    write_json({}, path)


@pytest.mark.parametrize("save", [_plan, _statistics, _report])
def test_what_cannot_take_its_name_leaves_nothing_behind(tmp_path: Path, save: Callable[[Path], None]) -> None:
    (tmp_path / "taken.json").mkdir()
    (tmp_path / "taken.json" / "file").touch()
    with pytest.raises(OutputError, match=r"taken\.json"):
        save(tmp_path / "taken.json")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.json"]


def test_a_measurement_that_cannot_be_kept_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_SUBPRUNE_CACHE", str(tmp_path))
    record = Record("kind", {"a": 1})
    record.data = {"b": 2}
    record.save()
    (path,) = tmp_path.rglob("*.json")

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    record.data = {"b": 3}
    record.save()
    assert list(path.parent.iterdir()) == [path]
    assert Record("kind", {"a": 1}).data == {"b": 2}


def test_only_what_can_be_read_without_waiting_is_regular(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("file", "", "nothing"):
        check_regular(tmp_path / name)
    for name in (tmp_path / "pipe", tmp_path / "link", "/dev/null"):
        with pytest.raises(OSError, match="not a regular file"):
            check_regular(name)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        probe_writable(tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []
