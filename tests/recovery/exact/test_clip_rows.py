"""Rows that are kept to fit behind a clip: enough of them, from everywhere, and not too many."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.calibration import ROWS_PER_FEATURE
from onnx_subprune.recovery.exact import clip_rows
from onnx_subprune.recovery.exact.clip_rows import ClipRows
from onnx_subprune.recovery.exact.rows import Rows
from onnx_subprune.recovery.exact.settings import Settings

FEATURES = 3


def _rows(count: int, start: int = 0, *, total: bool = True) -> Rows:
    """Rows whose every entry says which row it is."""
    number = np.arange(start, start + count, dtype=np.float64)[None, :, None]
    x = np.repeat(number, FEATURES, axis=2)
    return Rows(x, (2 * number,), np.arange(count) / count, None, 3 * number if total else None)


def test_few_rows_are_kept_all_and_stay_together() -> None:
    kept = ClipRows(Settings(), FEATURES, samples=8)
    for start in range(0, 80, 20):
        kept.add(0, _rows(20, start), 2)
    kept.add(1, _rows(20, 80), 2)
    fitted, held = kept.joined()
    np.testing.assert_array_equal(fitted.x[0, :, 0], np.arange(80))
    np.testing.assert_array_equal(held.x[0, :, 0], np.arange(80, 100))
    np.testing.assert_array_equal(fitted.parts[0], 2 * fitted.x[:, :, :1])
    np.testing.assert_array_equal(fitted.total, 3 * fitted.x[:, :, :1])


def test_of_many_rows_a_share_is_kept_from_all_over_the_data() -> None:
    kept = ClipRows(Settings(), FEATURES, samples=100)
    for start in range(0, 20_000, 200):
        kept.add(0, _rows(200, start), 1)
    kept.add(1, _rows(200), 1)
    fitted, _ = kept.joined()
    rows = fitted.x[0, :, 0]
    wanted = 40 * 64
    assert 0.8 * wanted < len(rows) < 1.2 * wanted
    assert len(set(rows.tolist())) == len(rows)
    quarters = np.histogram(rows, 4, (0, 20_000))[0]
    assert (quarters > 0.15 * wanted).all()


def test_the_same_seed_keeps_the_same_rows() -> None:
    def drawn(seed: int) -> np.ndarray:
        kept = ClipRows(Settings(seed=seed), FEATURES, samples=100)
        for start in range(0, 20_000, 1000):
            kept.add(0, _rows(1000, start), 5)
        kept.add(1, _rows(1000), 5)
        return np.asarray(kept.joined()[0].x)

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert drawn(1).shape != drawn(2).shape or (drawn(1) != drawn(2)).any()


def test_readers_of_one_weight_share_the_rows() -> None:
    alone, shared = (ClipRows(Settings(), FEATURES, samples=100, readers=number) for number in (1, 4))
    for kept in (alone, shared):
        for start in range(0, 20_000, 1000):
            kept.add(0, _rows(1000, start), 5)
        kept.add(1, _rows(1000), 5)
    counts = [kept.joined()[0].x.shape[1] for kept in (alone, shared)]
    assert counts[1] == pytest.approx(counts[0] / 4, rel=0.25)


def test_without_a_sum_there_is_nothing_to_clip() -> None:
    kept = ClipRows(Settings(), FEATURES, samples=8)
    kept.add(0, _rows(400, total=False), 8)
    kept.add(1, _rows(400, total=False), 8)
    assert not kept.enough


@pytest.mark.parametrize(
    ("fitted", "held", "enough"),
    [
        (ROWS_PER_FEATURE * FEATURES, 1, True),
        (ROWS_PER_FEATURE * FEATURES - 1, 1, False),
        (ROWS_PER_FEATURE * FEATURES, 0, False),
        (0, 10, False),
    ],
)
def test_what_is_enough(fitted: int, held: int, enough: bool) -> None:
    kept = ClipRows(Settings(), FEATURES, samples=8)
    for number, count in enumerate((fitted, held)):
        if count:
            kept.add(number, _rows(count), 8)
    assert kept.enough is enough


def test_rows_that_memory_has_no_room_for_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than a fit needs are of no use: then none is kept."""
    row_bytes = 8 * (FEATURES + 2)
    monkeypatch.setattr(clip_rows, "_CLIPPED_BYTES", row_bytes * ROWS_PER_FEATURE * FEATURES)
    kept = ClipRows(Settings(), FEATURES, samples=8)
    kept.add(0, _rows(400), 8)
    assert not kept.enough
    monkeypatch.setattr(clip_rows, "_CLIPPED_BYTES", row_bytes * (ROWS_PER_FEATURE * FEATURES + 30))
    kept = ClipRows(Settings(), FEATURES, samples=8)
    kept.add(0, _rows(4000), 8)
    kept.add(1, _rows(4000), 8)
    count = kept.joined()[0].x.shape[1]
    assert 0 < count < 2 * (ROWS_PER_FEATURE * FEATURES + 30)
