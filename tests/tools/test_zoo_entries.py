"""The index of the zoo: entries come back as they were written, and draw inputs that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from zoo.entries import Entry, Input, read_entries, write_entries


@pytest.fixture
def entry() -> Entry:
    inputs = (Input("ids", ("batch", "length"), "int64", high=96), Input("mask", ("batch", 1), "bool"), Input("t", ()))
    sizes = ({"batch": 2, "length": 5}, {"batch": 3, "length": 4})
    return Entry("net_ts17", "net", "language", {"exporter": "torch"}, inputs, sizes)


def test_an_index_is_read_as_it_was_written(entry: Entry, tmp_path: Path) -> None:
    other = Entry("a_first", "other", "vision", {}, (Input("x", (1, 3)),), ({}, {}))
    write_entries([entry, other], tmp_path / "zoo.json")
    assert read_entries(tmp_path / "zoo.json") == (other, entry)
    assert len((tmp_path / "zoo.json").read_text(encoding="utf-8").splitlines()) == 4, "a line for each entry"


def test_shapes_are_those_of_the_sizes(entry: Entry) -> None:
    assert entry.shapes(0) == {"ids": (2, 5), "mask": (2, 1), "t": ()}
    assert entry.shapes(1)["ids"] == (3, 4)


def test_inputs_have_their_types_and_ranges(entry: Entry) -> None:
    feeds = entry.feeds(1, seed=3)
    assert {name: (value.shape, value.dtype.name) for name, value in feeds.items()} == {
        "ids": ((3, 4), "int64"), "mask": ((3, 1), "bool"), "t": ((), "float32")
    }  # fmt: skip
    assert 0 <= feeds["ids"].min() <= feeds["ids"].max() < 96


def test_a_seed_gives_the_same_inputs(entry: Entry) -> None:
    first, same, other = (entry.feeds(0, seed)["ids"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
