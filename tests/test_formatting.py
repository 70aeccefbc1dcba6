"""Numbers as people read them."""

from __future__ import annotations

import pytest

from onnx_subprune.formatting import count, milliseconds, percent


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (12_572_096, "12.6 M"),
        (99_960, "100 k"),
        (999_600, "1.00 M"),
        (4_089_284_608, "4.09 G"),
    ],
)
def test_counts_have_three_digits(number: int, text: str) -> None:
    assert count(number) == text
    assert count(number, "B").endswith("B")


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0.0, "0%"), (1e-6, "< 0.01%"), (0.0012, "0.12%"), (0.0123, "1.2%"), (0.0996, "10%"), (0.5, "50%")],
)
def test_shares_have_two_digits_that_count(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0059, "5.90 µs"), (0.1, "0.100 ms"), (12.34, "12.3 ms"), (250, "250 ms"), (2500, "2.50 s")]
)
def test_times_have_three_digits(value: float, text: str) -> None:
    assert milliseconds(value) == text
