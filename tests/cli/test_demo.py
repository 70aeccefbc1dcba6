"""`demo`: the files it leaves, and what it refuses. The pruning itself is done by the tests of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_subprune import pipeline
from onnx_subprune.cli import demo as module
from onnx_subprune.cli.demo import _paths, _save_arrays
from onnx_subprune.demo import load_demo
from onnx_subprune.errors import OutputError
from onnx_subprune.options import Options

Cli = Callable[..., Any]


class Reached(Exception):  # noqa: N818 - no error: the test has seen enough
    """The long work would begin."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Options]]:
    calls: list[tuple[Any, Any, Options]] = []

    def prune(model: Any, data: Any, options: Options, **_: Any) -> None:
        calls.append((model, data, options))
        raise Reached

    monkeypatch.setattr(pipeline, "prune", prune)
    return calls


def test_its_options_are_half_the_macs_in_blocks_of_sixteen(cli: Cli, tmp_path: Path, asked: list[Any]) -> None:
    cli("demo", "--out", tmp_path / "demo")
    ((model, data, options),) = asked
    assert (str(options.target), options.round_to, options.threads) == ("macs=0.5", 16, None)
    assert Path(model) == Path(load_demo().model_path)
    assert {len(array) for array in data.values()} == {512}


def test_other_targets_and_blocks_can_be_asked_for(cli: Cli, tmp_path: Path, asked: list[Any]) -> None:
    cli("demo", "--out", tmp_path / "demo", "--target", "params=0.3", "--round-to", "1", "--threads", "2")
    ((_, _, options),) = asked
    assert (str(options.target), options.round_to, options.threads) == ("params=0.3", 1, 2)


@pytest.mark.parametrize(("words", "fragment"), [
    (("--target", "macs=2"), "macs=2"), (("--target", "size=0.5"), "size"), (("--round-to", "0"), "round-to"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_a_folder_is_made(
    cli: Cli, tmp_path: Path, asked: list[Any], words: tuple[str, ...], fragment: str
) -> None:
    outcome = cli("demo", "--out", tmp_path / "demo", *words)
    assert outcome.code == 1
    assert fragment in outcome.error
    assert asked == []
    assert not (tmp_path / "demo").exists()


def test_the_folder_is_made_and_may_be_there_already(tmp_path: Path) -> None:
    for _ in range(2):
        paths = _paths(tmp_path / "demo")
    assert (tmp_path / "demo").is_dir()
    assert sorted(paths) == sorted(module._FILES)
    assert {path.parent for path in paths.values()} == {tmp_path / "demo"}
    assert not list((tmp_path / "demo").iterdir()), "checking writes nothing"


def test_a_folder_below_one_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot make the folder .*; give --out a folder you can write to"):
        _paths(tmp_path / "gone" / "demo")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        _paths(tmp_path / "file")


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "labels": np.array([1, 0])}
    _save_arrays(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz") as saved:
        assert sorted(saved.files) == sorted(arrays)
        assert {name: saved[name].tolist() for name in arrays} == {k: v.tolist() for k, v in arrays.items()}
        assert all(saved[name].dtype == array.dtype for name, array in arrays.items())


def test_nothing_but_the_arrays_is_named_to_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy before 2.1 takes every keyword for an array, `allow_pickle` too; `prune` refuses data with one too many."""
    named: list[set[str]] = []
    monkeypatch.setattr(module.np, "savez", lambda path, **arrays: named.append(set(arrays)))
    _save_arrays(tmp_path / "a.npz", {"x": np.zeros(1)})
    assert named == [{"x"}]


def test_arrays_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*a\.npz.*; give --out a folder with room"):
        _save_arrays(tmp_path / "gone" / "a.npz", {"x": np.zeros(1)})
