"""The page of latencies follows from the figures alone, and figures are measured once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from speed.measure import Store
from speed.networks import NETWORKS
from speed.page import key_of, write

MADE = {"macs": 0.5, "measured": 0.6, "interval": [0.59, 0.61], "dense_ms": 10.0, "pruned_ms": 6.0}


def test_a_figure_is_measured_once_and_kept(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, Any]:
        calls.append(1)
        return dict(MADE)

    path = tmp_path / "latency.json"
    assert Store(path).measured("key", make) == MADE
    assert Store(path).measured("key", make) == MADE
    assert len(calls) == 1
    Store(path).measured("key", make, again=True)
    assert len(calls) == 2


@pytest.fixture
def page(tmp_path: Path) -> str:
    figures = {
        key_of("resnet56", 64, "latency=0.5", "fast", "ours"): {**MADE, "predicted": 0.58},
        key_of("resnet56", 1, "latency=0.5", "fast", "ours"): {**MADE, "predicted": 0.57, "metric": 91.3},
        key_of("resnet56", 1, "latency=0.7", "fast", "ours"): {"note": "out | of reach"},
        key_of("resnet56", 1, "latency=0.5", "fast", "same MACs, onnxsim"): {**MADE, "measured": 0.9, "interval": None},
        key_of("resnet56", 1, "latency=0.5", "fast", "same MACs, round auto"): MADE,
        key_of("resnet56", 1, "latency=0.5", "fast", "same MACs, round 1"): MADE,
    }
    write(figures, tmp_path / "latency.md", "a machine")
    return (tmp_path / "latency.md").read_text(encoding="utf-8")


def test_a_row_says_what_was_asked_for_and_what_came_of_it(page: str) -> None:
    assert "on a machine" in page
    row = "| **latency=0.5** | 0.500 | 0.570 | 0.600 | 0.590 to 0.610 | 10.00 ms | 6.00 ms | 0.80 | 91.30 |"
    assert row in page.splitlines()
    assert "| same MACs, onnxsim | 0.500 |  | 0.900 |  | 10.00 ms | 6.00 ms | 0.20 |  |" in page.splitlines()


def test_rows_and_tables_have_their_order_and_every_row_all_columns(page: str) -> None:
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles == [f"## {NETWORKS['resnet56'].title}, batch {batch}" for batch in (1, 64)]
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {10}
    firsts = [line.split("|")[1].strip() for line in rows]
    assert firsts[2:7] == [
        "**latency=0.7**",
        "**latency=0.5**",
        "same MACs, round 1",
        "same MACs, round auto",
        "same MACs, onnxsim",
    ]
