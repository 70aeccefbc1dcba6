"""The same samples in every form that data may have, and forms that end early or hold something else."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.calibration import Dataset, Gram, Statistics, Tap, accumulate, open_data, open_tokens
from onnx_subprune.calibration.accumulate import Accumulator, position_weights
from onnx_subprune.calibration.files import open_npy, open_npz
from onnx_subprune.calibration.grouping import PlacedBatch, regroup
from onnx_subprune.calibration.held_out import portions
from onnx_subprune.calibration.layout import layout_of
from onnx_subprune.calibration.statistics import thin_taps
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

FEW = settings(max_examples=25, deadline=None)
SPECS = (InputSpec("x", ("N", 3), np.dtype(np.float32)), InputSpec("n", ("N",), np.dtype(np.int64)))
ROWS = 11
X = np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float32)
N = np.arange(ROWS)


def npz(folder: Path, write: Callable[..., None] = np.savez) -> str:
    write(folder / "data.npz", x=X, n=N)
    return str(folder / "data.npz")


def folder_of_npz(folder: Path) -> str:
    for number, rows in enumerate((slice(0, 4), slice(4, 5), slice(5, ROWS))):
        np.savez(folder / f"{number}.npz", x=X[rows], n=N[rows])
    return str(folder)


def onnx_sets(folder: Path) -> str:
    for number in range(ROWS):
        inner = folder / f"test_data_set_{number}"
        inner.mkdir()
        # The names are not those of the inputs: then the place counts.
        for place, array in enumerate((X[number : number + 1], N[number : number + 1])):
            tensor = onnx.numpy_helper.from_array(array, "anything")
            (inner / f"input_{place}.pb").write_bytes(tensor.SerializeToString())
    return str(folder)


def script(folder: Path) -> str:
    np.savez(folder / "data.npz", x=X, n=N)
    (folder / "load.py").write_text(
        "import numpy as np, pathlib\n"
        "def load_data():\n"
        "    with np.load(pathlib.Path(__file__).with_name('data.npz')) as data:\n"
        "        for x, n in zip(data['x'], data['n']):\n"
        "            yield {'n': n, 'x': x}\n"
    )
    return f"{folder / 'load.py'}:load_data"


class Reader:
    def __init__(self) -> None:
        self.rows = iter(zip(X, N, strict=True))

    def get_next(self) -> dict[str, Any] | None:
        return next(({"x": x[None], "n": n[None]} for x, n in self.rows), None)


FORMS: dict[str, Callable[[Path], Any]] = {
    "dict": lambda _: {"x": X, "n": N},
    "dict of lists and another order": lambda _: {"n": N.astype(np.int32), "x": X.astype(np.float64)},
    "columns in Fortran's order": lambda _: {"x": np.asfortranarray(X), "n": N},
    "npz": npz,
    "compressed npz": lambda folder: npz(folder, np.savez_compressed),
    "folder of npz": folder_of_npz,
    "ONNX test data sets": onnx_sets,
    "script": script,
    "list of samples": lambda _: [{"x": x, "n": n} for x, n in zip(X, N, strict=True)],
    "list of batches": lambda _: [{"x": X[:2], "n": N[:2]}, {"x": X[2:], "n": N[2:]}],
    "generator": lambda _: ({"x": x, "n": n} for x, n in zip(X, N, strict=True)),
    "function": lambda _: lambda: [{"x": X, "n": N}],
    "reader": lambda _: Reader(),
}


def batches(data: Dataset, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(feeds["x"], feeds["n"]) for feeds in data.batches(size)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 4, 32])
def test_every_form_gives_the_same_batches_again_and_again(form: str, size: int, tmp_path: Path) -> None:
    data = open_data(FORMS[form](tmp_path), SPECS)
    for _ in range(2):
        read = batches(data, size)
        assert [len(x) for x, _ in read] == [min(size, ROWS - start) for start in range(0, ROWS, size)]
        assert np.array_equal(np.concatenate([x for x, _ in read]), X)
        assert np.array_equal(np.concatenate([n for _, n in read]), N)
        assert {(x.dtype.name, n.dtype.name) for x, n in read} == {("float32", "int64")}
        assert all(x.flags.c_contiguous for x, _ in read)


@pytest.mark.parametrize("form", FORMS)
def test_samples_are_chosen_by_a_seed_where_all_are_known_and_the_first_otherwise(form: str, tmp_path: Path) -> None:
    data = open_data(FORMS[form](tmp_path), SPECS, samples=5, seed=3)
    known = isinstance(data.samples, int)
    rows = np.random.default_rng(3).permutation(ROWS)[:5] if known else np.arange(5)
    assert np.concatenate([n for _, n in batches(data, 2)]).tolist() == rows.tolist()
    assert known == (form.startswith(("dict", "columns", "npz", "compressed")))


@pytest.mark.parametrize("form", FORMS)
def test_more_samples_than_there_are_is_all_of_them_in_order(form: str, tmp_path: Path) -> None:
    data = open_data(FORMS[form](tmp_path), SPECS, samples=ROWS + 5, seed=3)
    assert np.concatenate([n for _, n in batches(data, 4)]).tolist() == N.tolist()


def ends_with(error: Exception) -> Callable[[], Iterator[dict[str, Any]]]:
    def load() -> Iterator[dict[str, Any]]:
        yield {"x": X[:2], "n": N[:2]}
        raise error

    return load


@pytest.mark.parametrize(("source", "fragment"), [
    ([], "at least one sample expected, found none"),
    ([{"x": X[:0], "n": N[:0]}], "at least one sample expected, found none"),
    (ends_with(OSError("disk gone\nsecond line")), "it raised OSError: disk gone; mend the source"),
    (ends_with(ValueError()), "it raised ValueError: ; mend the source"),
    (lambda: None, "it raised TypeError"),
    ([X], "dicts of arrays by input name expected, found ndarray; yield dicts"),
    ([{"x": X}], "input 'n' expected, found nothing else"),
    ([{"x": X, "n": N}, {"x": X, "m": N}], "input 'n' expected, found 'm'"),
    ([{"x": X, "n": N, "extra": N}], "found 'extra' too; remove or rename that array"),
    ([{"x": X, "n": N[:-1]}], "found 'x' 11, 'n' 10; make the first axes equal"),
    ([{"x": X, "n": N.astype(np.float32)}], "input 'n' expected of dtype int64, found float32"),
    ([{"x": np.where(N[:, None] == 7, np.inf, X), "n": N}], "found inf in sample 7"),
    ([{"x": X, "n": N}, {"x": np.where(N[:, None] == 2, np.nan, X), "n": N}], "found nan in sample 13"),
])  # fmt: skip
def test_a_stream_that_is_wrong_somewhere_is_one_line_when_it_gets_there(source: Any, fragment: str) -> None:
    data = open_data(source, SPECS)
    with pytest.raises(DataError) as error:
        list(data.batches(4))
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", [3, None, X, 2.5])
def test_what_is_no_data_at_all_is_named_by_its_type(source: Any) -> None:
    with pytest.raises(DataError, match=f"found {type(source).__name__}; wrap it in one of these"):
        open_data(source, SPECS)


SIZES = st.lists(st.integers(0, 6), max_size=6)


@FEW
@given(SIZES, st.integers(1, 7))
def test_batches_of_any_size_are_cut_and_joined_to_one(sizes: list[int], size: int) -> None:
    total = sum(sizes)
    parts = np.split(np.arange(total), np.cumsum(sizes)[:-1]) if sizes else []
    batches = [PlacedBatch({"n": part}, part) for part in parts]
    cut = [(feeds["n"].tolist(), places.tolist()) for feeds, places in regroup(batches, size, layout_of(SPECS[1:]))]
    whole = [list(range(start, min(start + size, total))) for start in range(0, total, size)]
    assert cut == [(numbers, numbers) for numbers in whole]


@FEW
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 7))
def test_every_so_many_samples_one_is_held_out(count: int, size: int, every: int) -> None:
    data = open_data({"x": np.zeros((count, 3), np.float32), "n": np.arange(count)}, SPECS)
    held: dict[bool, list[int]] = {True: [], False: []}
    for portion in portions(data, size, every):
        assert portion.samples == portion.units == len(portion.feeds["n"]) <= size
        held[portion.held] += portion.feeds["n"].tolist()
    expected = [number for number in range(count) if every and number % every == every - 1]
    assert held[True] == expected
    assert sorted(held[False]) == [number for number in range(count) if number not in expected]


def by_definition(x: np.ndarray) -> np.ndarray:
    """Return the sum of [x; 1][x; 1]ᵀ over rows, row by row."""
    total = np.zeros((x.shape[1] + 1,) * 2)
    for row in x.astype(np.float64):
        extended = np.append(row, 1.0)
        total += np.outer(extended, extended)
    return total


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4))
def test_axes_that_are_stacked_are_blocks(seed: int, samples: int, heads: int, width: int) -> None:
    """[samples, heads, positions, width] with heads stacked before the width: features [heads x width]."""
    x = np.random.default_rng(seed).standard_normal((samples, heads, 2, width)).astype(np.float32)
    gram = accumulate(x, Tap("x", 3, stack=(1,)))
    rows = x.transpose(0, 2, 1, 3).reshape(samples * 2, heads * width)
    assert gram.count == samples * 2
    assert gram.matrix[0] == pytest.approx(by_definition(rows), abs=1e-5)


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 4))
def test_relative_positions_count_by_the_size_of_the_other_tensor(seed: int, rows: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    x, other = generator.standard_normal((rows, width)), generator.uniform(0.5, 2, (rows, 3))
    accumulator = Accumulator(Tap("x", 1, relative="other"))
    accumulator.add(x, other)
    weights = position_weights(other)
    squares = np.square(other).mean(axis=1)
    assert weights == pytest.approx(1 / np.maximum(squares, 0.01 * np.median(squares)), rel=1e-5)
    expected = sum(weight * by_definition(row[None]) for row, weight in zip(x, weights, strict=True))
    assert accumulator.finish()[0] == pytest.approx(expected, rel=1e-9)
    assert accumulator.count == rows


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(2, 20))
def test_covariance_is_that_of_numpy_and_merges(seed: int, rows: int) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, 3))
    whole, parts = accumulate(x, Tap("x", 1)), [accumulate(part, Tap("x", 1)) for part in (x[:1], x[1:])]
    for gram in (whole, parts[0] + parts[1]):
        assert gram.covariance()[0] == pytest.approx(np.cov(x, rowvar=False, bias=True), abs=1e-9)
        assert gram.mean()[0] == pytest.approx(x.mean(axis=0))
        assert (gram.count, gram.features, gram.blocks) == (rows, 3, 1)


def test_thin_taps_are_told_in_order_with_what_would_be_enough() -> None:
    grams = {name: accumulate(np.zeros((rows, 2)), Tap(name, 1)) for name, rows in (("b", 31), ("a", 3), ("c", 32))}
    lines = thin_taps(Statistics(grams, 32, "f"))
    assert [line.split(" on ")[1] for line in lines] == [
        f"{rows} rows for 2 features, where at least 32 are advised; use more samples" for rows in (3, 31)
    ]


@pytest.mark.parametrize("matrix", [
    np.zeros((1, 2, 3)), np.zeros((2, 2)), np.eye(2, dtype=np.float32)[None], np.zeros((0, 2, 2)),
    np.full((1, 2, 2), np.nan), np.full((1, 2, 2), 6.0),
])  # fmt: skip
def test_a_matrix_that_cannot_be_of_its_count_is_not_believed(matrix: np.ndarray, tmp_path: Path) -> None:
    Statistics({"x": Gram(5, matrix)}, 5, "f").save(tmp_path / "s.safetensors")
    with pytest.raises(DataError, match=r"found something else \(a matrix .*\); calibrate again"):
        Statistics.load(tmp_path / "s.safetensors")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_headers_of_npy_that_are_not_known_are_refused_by_number(version: tuple[int, int], tmp_path: Path) -> None:
    member = io.BytesIO()
    np.lib.format.write_array(member, X, version)
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", member.getvalue())
    if version == (3, 0):
        with pytest.raises(DataError, match=r"npy format 3\.0 is not supported; save it again"):
            open_npz(tmp_path / "data.npz")
    else:
        assert np.array_equal(open_npz(tmp_path / "data.npz")["x"].load(), X)


@pytest.mark.parametrize("write", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\x93NUMPY"),
    lambda path: np.save(path, np.array([{}], object), allow_pickle=True), lambda path: path.mkdir(),
])  # fmt: skip
def test_a_file_that_is_no_array_is_one_line(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "x.npy")
    with pytest.raises(DataError) as error:
        open_npy(tmp_path / "x.npy")
    assert str(tmp_path / "x.npy") in str(error.value)
    assert "\n" not in str(error.value)


TOKENS = (InputSpec("input_ids", ("N", "T"), np.dtype(np.int64)),)


@FEW
@given(st.integers(2, 40), st.integers(2, 12))
def test_a_stream_of_tokens_is_cut_into_whole_windows(length: int, window: int) -> None:
    if length < window:
        with pytest.raises(DataError, match=f"at least {window} token ids expected, one window, found {length}"):
            open_tokens(np.arange(length), TOKENS, window=window)
        return
    data = open_tokens(np.arange(length), TOKENS, window=window)
    ids = np.concatenate([feeds["input_ids"] for feeds in data.batches(3)])
    assert ids.shape == (length // window, window)
    assert ids.ravel().tolist() == list(range(length // window * window))
