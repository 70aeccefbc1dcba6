"""What makes an environment unfit."""

from __future__ import annotations

import pytest
from printed import printed_words

from onnx_subprune import report
from onnx_subprune.report import Environment


def fit(**changes: object) -> Environment:
    values = {"versions": {}, "runtimes": ("onnxruntime",), "providers": {"CPUExecutionProvider": None}}
    return Environment(**{**values, "opset": 22, "ir_version": 10, **changes})


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (fit(runtimes=("onnxruntime", "onnxruntime-gpu")), "pip uninstall onnxruntime onnxruntime-gpu"),
        (fit(providers={}), "it is not in this build"),
        (fit(providers={"CPUExecutionProvider": "no memory"}), "no memory"),
        (fit(opset=None), "reads none"),
    ],
)
def test_an_unfit_environment(environment: Environment, problem: str) -> None:
    (found,) = environment.problems
    assert problem in found
    assert [row[0] for row in printed_words(report.environment_table(environment)) if row[:1] == ["problem"]] == [
        "problem"
    ]


def test_a_fit_environment_may_have_providers_that_do_not_load() -> None:
    environment = fit(providers={"CUDAExecutionProvider": "no driver", "CPUExecutionProvider": None})
    assert environment.problems == []
    assert ["CUDAExecutionProvider", "no", "driver"] in printed_words(report.environment_table(environment))


def test_multiples_are_listed_by_where_they_were_measured() -> None:
    multiples = {"cpu, float32, 1 threads": {"conv": 8, "matmul": 16}}
    words = printed_words(report.environment_table(fit(), multiples))
    assert any(line[-4:] == ["conv", "8,", "matmul", "16"] for line in words)
