from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
VECTOR = (InputSpec("x", ("N", 2), F32),)
FIXED = (InputSpec("x", (4, 2), F32),)
TOKENS = (InputSpec("ids", ("batch", "length"), I64), InputSpec("mask", ("batch", "length"), I64))


def rows(start: int, stop: int) -> np.ndarray:
    return np.stack([np.arange(start, stop), -np.arange(start, stop)], axis=1).astype(np.float32)


def sizes(data: Any, batch_size: int) -> list[int]:
    return [len(next(iter(batch.values()))) for batch in data.batches(batch_size)]


def gathered(data: Any, batch_size: int = 4) -> np.ndarray:
    return np.concatenate([batch["x"] for batch in data.batches(batch_size)])


class Reader:
    """onnxruntime's CalibrationDataReader by duck type."""

    def __init__(self, count: int) -> None:
        self.items = iter([{"x": rows(n, n + 1)} for n in range(count)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.items, None)


class RewindingReader(Reader):
    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count, self.rewound = count, 0

    def rewind(self) -> None:
        self.rewound += 1
        super().__init__(self.count)


def generator() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": rows(0, 3)}
    yield {"x": rows(3, 9)}
    yield {"x": rows(9, 10)}


@pytest.mark.parametrize(
    "source",
    [
        generator,
        generator(),
        list(generator()),
        tuple({"x": row} for row in rows(0, 10)),
        Reader(10),
        RewindingReader(10),
        lambda: [{"x": rows(0, 10).tolist()}],
    ],
    ids=["callable", "iterator", "list", "single samples", "reader", "rewinding reader", "nested lists"],
)
def test_streams_are_regrouped_and_can_be_read_again(source: Any):
    data = open_data(source, VECTOR)
    assert sizes(data, 4) == [4, 4, 2]
    np.testing.assert_array_equal(gathered(data, 3), rows(0, 10))
    limited = open_data(list(generator()), VECTOR, samples=5)
    assert sizes(limited, 4) == [4, 1]
    np.testing.assert_array_equal(gathered(limited), rows(0, 5))


def test_a_reader_is_rewound_before_later_passes_only():
    reader = RewindingReader(3)
    data = open_data(reader, VECTOR)
    assert [sizes(data, 8), sizes(data, 8)] == [[3], [3]]
    assert reader.rewound == 1


def test_an_iterator_is_read_no_further_than_needed():
    def endless() -> Iterator[dict[str, np.ndarray]]:
        for n in range(100):
            assert n < 3
            yield {"x": rows(n, n + 1)}

    data = open_data(endless(), VECTOR, samples=3)
    assert [sizes(data, 2), sizes(data, 3)] == [[2, 1], [3]]


def test_samples_of_different_lengths_are_not_joined():
    lengths = [5, 5, 7, 7, 7, 5]
    items = [{"ids": np.zeros((1, n), I64), "mask": np.ones((1, n), I64)} for n in lengths]
    batches = list(open_data(items, TOKENS).batches(2))
    assert [batch["ids"].shape for batch in batches] == [(2, 5), (2, 7), (1, 7), (1, 5)]


def test_a_fixed_batch_is_regrouped_and_the_rest_dropped(caplog: pytest.LogCaptureFixture):
    data = open_data(generator, FIXED)
    with caplog.at_level(logging.WARNING):
        assert sizes(data, 1) == [4, 4]
    assert "2 samples dropped" in caplog.text
    with pytest.raises(DataError, match=r"at least 4 samples expected, .* found 3"):
        list(open_data(generator, FIXED, samples=3).batches(1))


def boom() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": rows(0, 1)}
    raise KeyError("no such column")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "list: at least one sample expected, found none"),
        ([rows(0, 2)], "dicts of arrays by input name expected, found ndarray"),
        (boom, "boom: a dict of inputs expected, it raised KeyError: 'no such column'"),
        ([{"x": rows(0, 2), "z": rows(0, 2)}], "found 'z' too"),
        ([{"x": np.zeros((2, 3))}], r"'x' expected of shape \[\?, 2\], found \[2, 3\]"),
        ([{"x": rows(0, 5)}, {"x": np.array([[1, 2], [3, np.nan]])}], "found nan in sample 6"),
    ],
)
def test_items_that_do_not_fit_are_refused(source: Any, message: str):
    with pytest.raises(DataError, match=message) as caught:
        list(open_data(source, VECTOR).batches(2))
    assert "\n" not in str(caught.value)


def test_inputs_of_one_item_must_agree_in_number():
    with pytest.raises(DataError, match="found 'ids' 2, 'mask' 1"):
        list(open_data([{"ids": np.zeros((2, 3), I64), "mask": np.zeros((1, 3), I64)}], TOKENS).batches(2))


@pytest.mark.parametrize("source", [3, rows(0, 2), None])
def test_sources_of_other_kinds_are_refused(source: Any):
    with pytest.raises(DataError, match=f"expected, found {type(source).__name__}"):
        open_data(source, VECTOR)


def test_a_script_is_called_anew_for_each_pass(tmp_path: Path):
    (tmp_path / "load.py").write_text(
        "import numpy as np\ncalls = []\n"
        "def load_data():\n    calls.append(1)\n    return [{'x': np.full((1, 2), len(calls))}] * 3\n"
    )
    data = open_data(f"{tmp_path}/load.py:load_data", (InputSpec("x", ("N", 2), I64),))
    assert [gathered(data)[0, 0], gathered(data)[0, 0]] == [1, 2]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("def f():\n    pass", "g", "a function 'g' expected in '.*', found none"),
        ("import nothing_of_this_name", "f", "it raised ModuleNotFoundError in line 1: No module named"),
        ("\ndef f(:", "f", "it raised SyntaxError in line 2: "),
        ("def f():\n    return 3", "f", "it raised TypeError: 'int' object is not iterable; mend the script"),
        ("def f():\n    g()\n    yield\ndef g():\n    1 / 0", "f", "it raised ZeroDivisionError in line 5: division"),
        ("import sys\nsys.exit('no data')", "f", "it raised SystemExit in line 2: no data; mend the script"),
        ("def f():\n    raise SystemExit", "f", "it raised SystemExit in line 2; mend the script"),
    ],
)
def test_scripts_that_fail_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, message: str
):
    (tmp_path / "load.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for path in ("load.py", tmp_path / "load.py"):
        with pytest.raises(DataError, match=f"'{path}' expected to give|^a function 'g'") as caught:
            list(open_data(f"{path}:{name}", VECTOR).batches(1))
        assert re.search(message, str(caught.value))
    assert [path.name for path in tmp_path.iterdir()] == ["load.py"], "no bytecode"
    with pytest.raises(DataError, match="a Python file expected at"):
        open_data(f"{tmp_path}/none.py:{name}", VECTOR)


def test_a_folder_of_npy_files_holds_samples_and_batches(tmp_path: Path):
    np.save(tmp_path / "a.npy", rows(0, 3))
    np.save(tmp_path / "b.npy", rows(3, 4)[0])
    np.save(tmp_path / "labels.npy", np.arange(4))
    (tmp_path / "notes.txt").touch()
    data = open_data(tmp_path, VECTOR)
    np.testing.assert_array_equal(gathered(data, 3), rows(0, 4))
    np.testing.assert_array_equal(data.labels, np.arange(4))
    np.testing.assert_array_equal(open_data(tmp_path, VECTOR, samples=2).labels, np.arange(2))


def test_a_folder_of_npz_files_may_hold_labels_in_each(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=rows(0, 3), labels=[5, 6, 7])
    np.savez_compressed(tmp_path / "b.npz", x=rows(3, 4)[0], labels=8)
    data = open_data(tmp_path, VECTOR)
    np.testing.assert_array_equal(gathered(data), rows(0, 4))
    np.testing.assert_array_equal(data.labels, [5, 6, 7, 8])
    np.savez(tmp_path / "c.npz", x=rows(4, 5))
    with pytest.raises(DataError, match=r"labels expected in every file of '.*', found none in 'c\.npz'"):
        open_data(tmp_path, VECTOR)


@pytest.mark.parametrize("count", [3, 5])
def test_labels_of_a_folder_must_match_its_samples(tmp_path: Path, count: int):
    np.save(tmp_path / "a.npy", rows(0, 4))
    np.save(tmp_path / "labels.npy", np.arange(count))
    with pytest.raises(DataError, match=f"a label for each of 4 samples expected, found {count}"):
        list(open_data(tmp_path, VECTOR).batches(4))


def test_folders_without_suitable_files_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"\.npy or \.npz files, or test_data_set_\* folders, expected"):
        open_data(tmp_path, VECTOR)
    np.save(tmp_path / "a.npy", rows(0, 3))
    with pytest.raises(DataError, match=r"\.npz files expected in '.*' for a model with 2 inputs, found \.npy"):
        open_data(tmp_path, TOKENS)


def test_onnx_test_data_sets_are_read_in_numeric_order(tmp_path: Path):
    for number in (2, 10, 1):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        ids, mask = np.full((1, 4), number), np.ones((1, 4), I64)
        # One file names its input, the other goes by its place.
        (folder / "input_0.pb").write_bytes(onnx.numpy_helper.from_array(mask, "mask").SerializeToString())
        (folder / "input_1.pb").write_bytes(onnx.numpy_helper.from_array(ids, "ids").SerializeToString())
    batches = list(open_data(tmp_path, TOKENS).batches(1))
    assert [int(batch["ids"][0, 0]) for batch in batches] == [1, 2, 10]
    assert len(list(open_data(tmp_path / "test_data_set_2", TOKENS).batches(1))) == 1
    unnamed = onnx.numpy_helper.from_array(rows(0, 2)).SerializeToString()
    for path in tmp_path.glob("*/input_1.pb"):
        path.unlink()
    for path in tmp_path.glob("*/input_0.pb"):
        path.write_bytes(unnamed)
    np.testing.assert_array_equal(gathered(open_data(tmp_path / "test_data_set_1", VECTOR)), rows(0, 2))
    (tmp_path / "test_data_set_1" / "input_0.pb").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"plain arrays expected in '.*input_0\.pb'"):
        list(open_data(tmp_path, VECTOR).batches(1))
