"""Operator sets of nodes that a model forgets to import: ONNX Runtime imports those that it knows itself."""

from __future__ import annotations

import onnx

from onnx_subprune.model.protos import ONNX_DOMAINS, graphs

__all__ = ["import_domains", "missing_domains", "with_domains"]


def with_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that imports all operator sets of its nodes; the same object where it does already.

    ONNX's shape inference refuses a model that does not.

    Args:
        model: stays unchanged.

    """
    if not missing_domains(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    import_domains(copy)
    return copy


def import_domains(model: onnx.ModelProto) -> None:
    """Import the newest version that is known, or version 1, of the operator sets that a model lacks.

    Args:
        model: is changed.

    """
    for domain in missing_domains(model):
        versions = [schema.since_version for schema in onnx.defs.get_all_schemas() if schema.domain == domain]
        model.opset_import.append(onnx.helper.make_opsetid(domain, max(versions, default=1)))


def missing_domains(model: onnx.ModelProto) -> list[str]:
    """Return the domains of nodes outside functions that are not imported, the main graph first.

    Both spellings of ONNX's own domain count as one.

    Args:
        model: bodies are looked into.

    """
    known = {opset.domain for opset in model.opset_import}
    known |= set(ONNX_DOMAINS) if known & set(ONNX_DOMAINS) else set()
    used = dict.fromkeys(node.domain for graph in graphs(model.graph) for node in graph.node)
    return [domain for domain in used if domain not in known]
