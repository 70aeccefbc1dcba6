"""What a run found and did: as data, as tables, and the environment it ran in."""

from onnx_subprune.report.document import (
    Document,
    analysis_as_dict,
    as_dict,
    factorisation_as_dict,
    to_json,
)
from onnx_subprune.report.environment import Environment, examine, versions
from onnx_subprune.report.files import check_name, is_page, write_json, write_report
from onnx_subprune.report.live_progress import progress_bar
from onnx_subprune.report.plots import plot
from onnx_subprune.report.speed import latency_table, node_table, operator_table
from onnx_subprune.report.tables import (
    accuracy_table,
    cost_rows,
    cost_table,
    drop_line,
    environment_table,
    fidelity_table,
    frozen_table,
    group_table,
    odd_widths_line,
    perplexity_table,
    rank_table,
    side_by_side,
    totals,
    width_table,
)

__all__ = [
    "Document",
    "Environment",
    "accuracy_table",
    "analysis_as_dict",
    "as_dict",
    "check_name",
    "cost_rows",
    "cost_table",
    "drop_line",
    "environment_table",
    "examine",
    "factorisation_as_dict",
    "fidelity_table",
    "frozen_table",
    "group_table",
    "is_page",
    "latency_table",
    "node_table",
    "odd_widths_line",
    "operator_table",
    "perplexity_table",
    "plot",
    "progress_bar",
    "rank_table",
    "side_by_side",
    "to_json",
    "totals",
    "versions",
    "width_table",
    "write_json",
    "write_report",
]
