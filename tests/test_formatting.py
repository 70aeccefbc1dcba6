"""Numbers as people read them, at the edges where a digit or a prefix changes."""

from __future__ import annotations

import pytest

from onnx_subprune.formatting import change, count, html_table, milliseconds, percent


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (1, "1"), (960, "960"), (999, "999"), (1000, "1.00 k"), (1234, "1.23 k"), (99_950, "100 k"),
        (999_499, "999 k"), (999_500, "1.00 M"), (12_600_000, "12.6 M"), (7_000_000_000, "7.00 G"),
    ],
)  # fmt: skip
def test_counts_have_three_digits_and_a_prefix(number: int, text: str) -> None:
    assert count(number) == text


def test_units_stand_behind_the_prefix() -> None:
    assert [count(557_000, "B"), count(960, "B")] == ["557 kB", "960 B"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "-"), (0.0, "0%"), (0.00005, "< 0.01%"), (0.0012, "0.12%"), (0.0099, "0.99%"), (0.00995, "1.0%"),
        (0.012, "1.2%"), (0.0994, "9.9%"), (0.0996, "10%"), (0.123, "12%"), (1.0, "100%"), (-0.02, "-2.0%"),
    ],
)  # fmt: skip
def test_shares_have_two_digits_that_count(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0709, "70.9 µs"), (0.09994, "99.9 µs"), (0.1, "0.100 ms"), (0.12, "0.120 ms"), (12.34, "12.3 ms"),
        (999.4, "999 ms"), (999.6, "1.00 s"), (12_345.0, "12.3 s"),
    ],
)  # fmt: skip
def test_times_of_any_size_have_three_digits(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_a_change_is_a_percentage_of_what_there_was() -> None:
    assert change(200, 98) == "49.0%"
    assert change(0, 5) == "-"


def test_a_table_is_escaped_and_says_how_much_is_left_out() -> None:
    table = html_table(["a<b", "c"], [(f"row {i}", "<script>") for i in range(32)], caption="x & y")
    assert "<script>" not in table
    assert table.count("&lt;script&gt;") == 30
    assert '<th scope="col">a&lt;b</th>' in table
    assert "<caption>x &amp; y</caption>" in table
    assert "and 2 more" in table


def test_a_short_table_is_whole() -> None:
    table = html_table(["a", "b"], [("1", "2")])
    assert "more" not in table
    assert "caption" not in table
    assert '<tr><th scope="row">1</th><td>2</td></tr>' in table


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
def test_counts_take_the_unit_after_the_prefix(number: int, text: str) -> None:
    assert count(number) == text
    assert count(number, "B").endswith("B")


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0.0, "0%"), (1e-6, "< 0.01%"), (0.0012, "0.12%"), (0.0123, "1.2%"), (0.0996, "10%"), (0.5, "50%")],
)
def test_small_and_large_shares(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0059, "5.90 µs"), (0.1, "0.100 ms"), (12.34, "12.3 ms"), (250, "250 ms"), (2500, "2.50 s")]
)
def test_times_from_microseconds_to_seconds(value: float, text: str) -> None:
    assert milliseconds(value) == text
