"""What a model says of sizes known at run time only."""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.structure.axes import Symbols, fresh


def test_axes_of_one_name_and_size_are_one() -> None:
    symbols, first, second = Symbols(), fresh(2, dynamic=True), fresh(2, dynamic=True)
    assert symbols.claim("batch", first) is first
    assert symbols.claim("batch", second) is first
    assert symbols.claim("sequence", second) is second


def test_a_name_with_another_nominal_size_is_another_axis() -> None:
    symbols, one, other = Symbols(), fresh(2, dynamic=True), fresh(3, dynamic=True)
    symbols.claim("batch", one)
    assert symbols.claim("batch", other) is other


@pytest.mark.parametrize("mark", ["", " ? ", "-1", "None", "Unknown", "dynamic", None, -1])
def test_marks_for_any_size_name_nothing(mark: object) -> None:
    symbols, one, other = Symbols(), fresh(2, dynamic=True), fresh(2, dynamic=True)
    symbols.claim(mark, one)
    assert symbols.claim(mark, other) is other


def test_the_axis_of_a_declared_symbol_is_found() -> None:
    symbols, batch = Symbols(), fresh(2, dynamic=True)
    symbols.claim("batch", batch)
    tensor = gs.Variable("x", shape=("batch", 3))
    assert symbols.find(tensor, 0, 2) is batch
    assert symbols.find(tensor, 0, 5) is None
    assert symbols.find(tensor, 1, 3) is None
    assert symbols.find(tensor, 2, 2) is None
    assert symbols.find(gs.Variable("y"), 0, 2) is None
