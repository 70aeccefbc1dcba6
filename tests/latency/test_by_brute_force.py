"""Times of turns and decisions against plain sums, and what the cache keeps for other runs on the machine."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.latency import Record, Times, machine
from onnx_subprune.latency import cache as cache_module
from onnx_subprune.latency.cache import _facts, _processor, kept
from onnx_subprune.latency.multiples import decided

FEW = settings(max_examples=25, deadline=None)
SECONDS = st.floats(0.001, 10.0)
ROUNDS = st.lists(
    st.tuples(st.tuples(SECONDS, st.booleans()), st.tuples(SECONDS, st.booleans())), min_size=1, max_size=20
)


def times_of(rounds: list[Any], sitting: list[int] | None = None) -> Times:
    table = np.array(rounds, np.float64)
    numbers = None if sitting is None else np.array(sitting)
    return Times(table[..., 0], table[..., 1].astype(bool), numbers)


@FEW
@given(ROUNDS)
def test_rounds_in_peace_count_where_there_are_six(rounds: list[Any]) -> None:
    peaceful = [row for row in rounds if row[0][1] and row[1][1]]
    counted = peaceful if len(peaceful) >= 6 else rounds
    times = times_of(rounds)
    ratios = [other[0] / first[0] for first, other in counted]
    assert times.paired(1) == pytest.approx(np.array(ratios))
    assert times.ratios[1] == pytest.approx(statistics.median(ratios))
    assert times.milliseconds[1] == pytest.approx(1e3 * statistics.median(other[0] for _, other in counted))
    interval = times.interval(1)
    assert (interval is None) == (len(counted) < 6)
    assert interval is None or interval[0] <= times.ratios[1] <= interval[1]


@pytest.mark.parametrize(("calm", "ratio"), [(5, 0.75), (6, 0.5), (7, 0.5)])
def test_five_rounds_in_peace_are_too_few(calm: int, ratio: float) -> None:
    rounds = [((1.0, True), (0.5, True))] * calm + [((1.0, True), (1.0, False))] * calm
    assert times_of(rounds).ratios[1] == ratio


@FEW
@given(st.lists(ROUNDS, min_size=2, max_size=4))
def test_joined_sittings_have_a_ratio_each(sittings: list[list[Any]]) -> None:
    calm = [[((first, True), (other, True)) for (first, _), (other, _) in rounds] for rounds in sittings]
    joined = Times.joined([times_of(rounds) for rounds in calm])
    assert len(joined.seconds) == sum(map(len, calm))
    medians = [statistics.median(other[0] / first[0] for first, other in rounds) for rounds in calm]
    assert joined.ratios[1] == pytest.approx(statistics.median(medians))
    assert joined.ratios[0] == 1.0


@FEW
@given(ROUNDS, st.integers(1, 9))
def test_blocks_are_medians_of_successive_rounds(rounds: list[Any], number: int) -> None:
    blocks = times_of(rounds).blocks(number)
    parts = [part.tolist() for part in np.array_split(np.arange(len(rounds)), min(number, len(rounds)))]
    assert len(blocks) == len(parts)
    for row, part in zip(blocks, parts, strict=True):
        for model, typical in enumerate(row):
            runs = [rounds[index][model] for index in part]
            peaceful = [seconds for seconds, calm in runs if calm]
            assert typical == pytest.approx(statistics.median(peaceful or [seconds for seconds, _ in runs]))


WIDTHS = (32, 33, 34, 36, 40, 44, 47, 48, 50, 52, 56, 58, 60, 62, 63, 64)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
def test_a_kernel_that_fills_blocks_pays_at_its_block_in_any_unit(block: int, scale: float) -> None:
    seconds = np.array([[scale * -(-width // block) * block for width in WIDTHS]] * 9)
    decision = decided(WIDTHS, seconds)
    assert (decision.multiple, decision.sure) == (block, True)


def test_a_kernel_that_is_as_fast_at_any_width_takes_the_largest_multiple() -> None:
    assert decided(WIDTHS, np.ones((9, len(WIDTHS)))).multiple == 16


def saved(kind: str, name: str, data: dict[str, Any], **key: Any) -> None:
    record = Record(kind, {"name": name, **machine(("cpu",), 1), **key})
    record.data = data
    record.save()


def test_what_was_measured_here_is_kept_for_all_to_see() -> None:
    saved("multiples", "a", {"conv": 8})
    saved("multiples", "b", {"conv": 4}, providers=["cuda"])
    saved("latency", "a", {"ratio": 0.5})
    found = kept("multiples")
    assert sorted((key["name"], data["conv"]) for key, data in found) == [("a", 8), ("b", 4)]
    assert [data for _, data in kept("latency")] == [{"ratio": 0.5}]
    assert kept("other") == []


@pytest.mark.parametrize("key", [{"processor": "another"}, {"onnxruntime": "0.1"}])
def test_what_another_machine_or_runtime_measured_is_not(key: dict[str, str]) -> None:
    saved("multiples", "a", {"conv": 8}, **key)
    assert kept("multiples") == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "onnx_subprune.measured/1", "key": 1, "data": {}}', "\xff"]
)
def test_a_file_that_is_none_of_ours_is_passed_over(measurements: Path, text: str) -> None:
    saved("multiples", "a", {"conv": 8})
    (measurements / "multiples-0.json").write_text(text, encoding="latin-1")
    assert [data for _, data in kept("multiples")] == [{"conv": 8}]


def test_a_machine_is_told_by_all_that_times_depend_on() -> None:
    here = machine(("cuda", "cpu"), 3)
    assert (here["providers"], here["threads"], here["onnxruntime"]) == (["cuda", "cpu"], 3, ort.__version__)
    assert json.loads(json.dumps(here)) == here


def test_facts_are_lines_with_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_bytes(b"model name\t: Chip: 3\nflags : fpu avx2 sse4_2\n\nno colon\nodd : \xff\n")
    assert list(_facts(path)) == [("model name", "Chip: 3"), ("flags", "fpu avx2 sse4_2"), ("odd", "\ufffd")]
    assert list(_facts(tmp_path / "gone")) == []


@pytest.mark.parametrize(("facts", "expected"), [
    ([("model name", "Chip"), ("flags", "fpu sse4_1 avx2 fma mmx")], "Chip avx2 fma sse4_1"),
    ([("model name", "Arm"), ("Features", "fp asimd sve2 crc32")], "Arm asimd sve2"),
    ([("model name", "Plain")], "Plain"),
])  # fmt: skip
def test_a_processor_is_its_name_and_its_vectors(
    facts: list[tuple[str, str]], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_facts", lambda path: iter(facts if path.name == "cpuinfo" else ()))
    # Past the memory of the process, which keeps the true one.
    assert _processor.__wrapped__().split() == expected.split()
