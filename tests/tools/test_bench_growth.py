"""The benchmark of growth: its networks are of the size they say, and a case gives a row of the page."""

from __future__ import annotations

from pathlib import Path

import bench_growth
import onnx
import pytest
from bench_growth import chain, measured, pair, rows, section


@pytest.mark.parametrize("nodes", [2, 10])
def test_a_chain_has_its_nodes_and_a_head(nodes: int) -> None:
    model = chain(nodes)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) == nodes + 2


def test_a_pair_has_its_width() -> None:
    model = pair(24)
    onnx.checker.check_model(model, full_check=True)
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[64, 24], [24, 64]]


def test_a_case_takes_time_and_memory(tmp_path: Path) -> None:
    seconds, peak = measured("width", 32, tmp_path)
    assert 0.0 < seconds < 60.0
    assert 50.0 < peak < 4000.0


def test_samples_are_written_as_files(tmp_path: Path) -> None:
    bench_growth._write_samples(700, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.npy", "000500.npy"]


def test_rows_of_a_page_come_from_processes_of_their_own() -> None:
    (row,) = rows({"width": [16]})
    assert row[:2] == ("width", "16")
    page = section([row])
    assert page.startswith("## Growth\n")
    assert f"| width | 16 | {row[2]} | {row[3]} |  |" in page
