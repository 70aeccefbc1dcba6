"""Operator sets that a model forgets to import."""

from __future__ import annotations

import onnx
import pytest

from onnx_subprune.model import open_session
from onnx_subprune.model.domains import import_domains, missing_domains, with_domains

TEXT = """<ir_version: 8, opset_import: [{imported}]>
g (float[2,3] x, bool c) => (float[2,3] y) {{
    a = com.microsoft.Gelu(x)
    b = If (c) <
        then_branch = yes () => (float[2,3] p) {{ p = my.own.Thing(a) }},
        else_branch = no () => (float[2,3] q) {{ q = com.microsoft.Gelu(a) }}
    >
    y = ai.onnx.ml.Normalizer (b)
}}"""


def _model(imported: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT.format(imported=imported))


def test_domains_are_missed_in_bodies_too_each_once() -> None:
    assert missing_domains(_model('"" : 17')) == ["com.microsoft", "ai.onnx.ml", "my.own"]
    assert missing_domains(_model('"" : 17, "com.microsoft" : 1, "my.own" : 2, "ai.onnx.ml" : 3')) == []


def test_the_newest_version_that_is_known_is_imported() -> None:
    model = _model('"ai.onnx" : 17, "my.own" : 2')
    import_domains(model)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    newest = max(schema.since_version for schema in onnx.defs.get_all_schemas() if schema.domain == "ai.onnx.ml")
    assert versions == {"ai.onnx": 17, "my.own": 2, "com.microsoft": 1, "ai.onnx.ml": newest}


def test_a_model_that_imports_all_is_the_same_object() -> None:
    whole, lacking = _model('"" : 17, "com.microsoft" : 1, "my.own" : 2, "ai.onnx.ml" : 3'), _model('"" : 17')
    assert with_domains(whole) is whole
    completed = with_domains(lacking)
    assert len(lacking.opset_import) == 1
    assert completed.graph == lacking.graph
    assert len(completed.opset_import) == 4


@pytest.mark.parametrize("imported", ['"" : 17', '"" : 17, "com.microsoft" : 1'])
def test_onnxruntime_runs_a_model_that_forgets_its_own_domain(imported: str) -> None:
    """This is why such models are not refused."""
    text = f"<ir_version: 8, opset_import: [{imported}]> g (float[2] x) => (float[2] y) {{ y = com.microsoft.Gelu(x) }}"
    open_session(onnx.parser.parse_model(text))
