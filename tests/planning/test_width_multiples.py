"""Widths that are fast on this machine, on one that the tests make up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnx_subprune import budget
from onnx_subprune.demo import load_demo
from onnx_subprune.latency import FAMILIES, Decision
from onnx_subprune.model import Runtime, load_model
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.planning import width_multiples
from onnx_subprune.planning.width_multiples import fast_multiples, known_multiples, with_multiples


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(load_model(load_demo().model_path), {"image": (1, 1, 28, 28)})


@pytest.fixture(scope="module")
def curves(analysis: Analysis) -> list[budget.Curve]:
    share = {g.size: np.linspace(0.0, 1.0, g.size + 1) for g in analysis.structure.prunable}
    return [budget.Curve(g.name, g.size, np.arange(g.size), share[g.size]) for g in analysis.structure.prunable]


def test_widths_are_multiples_of_what_pays_for_all_that_touch_them(
    analysis: Analysis, curves: list[budget.Curve]
) -> None:
    one = dict.fromkeys(FAMILIES, 1)
    plain = with_multiples(curves, analysis.structure, one)
    assert [curve.round_to for curve in plain] == [1] * len(curves)
    wide = with_multiples([replace(curve, round_to=3) for curve in curves], analysis.structure, {**one, "conv": 8})
    assert any(curve.round_to == 24 for curve in wide)
    assert all(curve.round_to % 3 == 0 for curve in wide)


def test_multiples_are_measured_once(monkeypatch: pytest.MonkeyPatch, analysis: Analysis) -> None:
    calls: list[Any] = []

    def measured(*given: Any, **_: Any) -> dict[str, Decision]:
        calls.append(given)
        return {name: Decision(4, sure=name != "conv") for name in FAMILIES}

    monkeypatch.setattr(width_multiples, "measured_multiples", measured)
    first = fast_multiples(analysis.model, Runtime(threads=1))
    assert first == fast_multiples(analysis.model, Runtime(threads=1))
    assert first.by_family == dict.fromkeys(FAMILIES, 4)
    assert "leave open which multiples pay for conv" in first.warnings[0]
    assert len(calls) == 1
    fast_multiples(analysis.model, Runtime(threads=2))
    fast_multiples(analysis.model, Runtime(threads=1), remeasure=True)
    assert len(calls) == 3


def test_measured_multiples_are_known_by_what_they_were_measured_with(
    monkeypatch: pytest.MonkeyPatch, analysis: Analysis
) -> None:
    decisions = {family: Decision(4, sure=True) for family in FAMILIES}
    monkeypatch.setattr(width_multiples, "measured_multiples", lambda *_, **__: decisions)
    assert known_multiples() == {}
    for threads in (1, None):
        fast_multiples(analysis.model, Runtime(threads=threads))
    known = known_multiples()
    assert sorted(key.rpartition(", ")[2] for key in known) == ["1 threads", "all threads"]
    assert list(known.values()) == [dict.fromkeys(FAMILIES, 4)] * 2
