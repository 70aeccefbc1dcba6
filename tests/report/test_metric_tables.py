"""Accuracy and fidelity of several models."""

from __future__ import annotations

from printed import printed_words

from onnx_subprune import report
from onnx_subprune.evaluate import Fidelity, OutputFidelity, Perplexity, Top1


def test_accuracy_is_compared_with_the_first() -> None:
    rows = printed_words(report.accuracy_table(["a", "b"], [Top1(0.9, 90, 100), Top1(0.875, 7, 8)]))
    assert ["b", "87.50%", "-2.50", "7", "/", "8"] in rows


def test_fidelity_shows_what_there_is() -> None:
    outputs = {"y": OutputFidelity(0.1, 0.99, 1.0, 0.5, 0.25), "z": OutputFidelity(float("inf"), 0.0, 2.0)}
    rows = printed_words(report.fidelity_table(["m"], [Fidelity(outputs, 4)]))
    assert ["m", "y", "1.00e-01", "0.990000", "1.00e+00", "50.00%", "2.50e-01"] in rows
    assert ["m", "z", "inf", "0.000000", "2.00e+00", "-", "-"] in rows


def test_perplexity_is_compared_with_the_first() -> None:
    measured = [Perplexity(20.0, 2.9957, 1000, 10), Perplexity(25.5, 3.2387, 1000, 10)]
    rows = printed_words(report.perplexity_table(["a", "b"], measured))
    assert ["a", "20", "+0", "2.9957", "1000"] in rows
    assert ["b", "25.5", "+5.5", "3.2387", "1000"] in rows
