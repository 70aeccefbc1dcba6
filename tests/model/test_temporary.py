"""Temporary folders go with their owner, and those of killed owners with the next one; nothing else is touched."""

from __future__ import annotations

import gc
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_subprune.model import temporary
from onnx_subprune.model.temporary import TemporaryFolder, sweep

OWNER = """
import sys
from pathlib import Path
from onnx_subprune.model.temporary import TemporaryFolder
folder = TemporaryFolder(Path(sys.argv[1]))
(folder.path / "weights").write_bytes(b"many")
print(folder.path, flush=True)
sys.stdin.read()
"""
ABANDONED = f".onnx-subprune-{'0' * 32}.tmp"


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Return another process and its temporary folder."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_folder_goes_when_it_is_closed_or_forgotten(tmp_path: Path) -> None:
    with TemporaryFolder(tmp_path) as path:
        (path / "file").touch()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    folder = TemporaryFolder(tmp_path)
    assert folder.path != path
    assert list(tmp_path.iterdir()) == [folder.path]
    folder.close()
    folder.close()
    folder = TemporaryFolder(tmp_path)
    del folder
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_forked_process_does_not_take_the_folder_with_it(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from onnx_subprune.model.temporary import TemporaryFolder, sweep
folder = TemporaryFolder(Path(sys.argv[1]))
child = os.fork()
if not child:
    folder.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
sweep(folder.path.parent)
print(folder.path.exists())
"""
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "True\n"
    assert not list(tmp_path.iterdir())


def test_the_folder_of_temporary_files_is_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with TemporaryFolder() as path:
        assert path.parent == tmp_path


def test_a_live_process_keeps_its_folder_and_a_killed_one_does_not(
    tmp_path: Path, owner: tuple[subprocess.Popen[str], Path]
) -> None:
    process, path = owner
    sweep(tmp_path)
    with TemporaryFolder(tmp_path):
        assert (path / "weights").read_bytes() == b"many"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    TemporaryFolder(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_only_folders_of_that_name_are_swept(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    place = tmp_path / "place"
    place.mkdir()
    for name in ("onnx-subprune-demo", ".onnx-subprune-demo.tmp", f"{ABANDONED}.more"):
        (place / name).mkdir()
    (place / ABANDONED).symlink_to(outside)
    os.mkfifo(place / ABANDONED.replace("0", "1"))
    (place / ABANDONED.replace("0", "2")).write_text("a file")
    (place / ABANDONED.replace("0", "3") / "sub").mkdir(parents=True)
    (place / ABANDONED.replace("0", "3") / "sub" / "link").symlink_to(outside)
    before = sorted(place.iterdir())
    sweep(place)
    assert sorted(place.iterdir()) == [path for path in before if "3" not in path.name]
    assert (outside / "precious").exists()
    sweep(tmp_path / "missing")


def test_folders_of_other_users_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ABANDONED).mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    sweep(tmp_path)
    assert (tmp_path / ABANDONED).exists()


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_a_folder_that_is_swept_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    opened, lost = temporary._opened, list[Path]()

    def swept(folder: Path) -> int:
        if lost:
            return opened(folder)
        lost.append(folder)
        if moment == "before it is opened":
            folder.rmdir()
            return opened(folder)
        descriptor = opened(folder)
        folder.rmdir()
        return descriptor

    monkeypatch.setattr(temporary, "_opened", swept)
    with TemporaryFolder(tmp_path) as path:
        assert path.is_dir()
        assert path not in lost


def test_a_file_system_without_locks_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(temporary.fcntl, "flock", none)
    (tmp_path / ABANDONED).mkdir()
    with TemporaryFolder(tmp_path) as path:
        assert path.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [ABANDONED]
