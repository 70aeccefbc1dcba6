"""Tables stay readable in a narrow terminal."""

from __future__ import annotations

import io

from rich.console import Console

from onnx_subprune.report.table import table


def test_names_wrap_and_numbers_stay_whole() -> None:
    name, number = "/encoder/layer.0/attention/self/query/MatMul", "1234567"
    console = Console(file=io.StringIO(), width=30, markup=False)
    console.print(table(("name", "units"), [(name, number)], "lr"))
    lines = console.file.getvalue().splitlines()
    assert "".join(line[:20].strip() for line in lines[2:]).replace(number, "") == name
    assert any(number in line for line in lines)
