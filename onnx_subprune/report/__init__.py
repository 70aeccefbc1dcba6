"""Documents of what a run did, as JSON, as tables, as figures and as a page; and the environment it ran in."""

from onnx_subprune.report.document import Document, to_json
from onnx_subprune.report.environment import Environment, environment_table, examine, versions
from onnx_subprune.report.live_progress import progress_bar
from onnx_subprune.report.metric_tables import accuracy_table, fidelity_table, perplexity_table
from onnx_subprune.report.notebook_figures import plot
from onnx_subprune.report.pruning_tables import (
    cost_table,
    drop_line,
    forecast_line,
    odd_widths_line,
    oracle_line,
    output_error_line,
    rank_table,
    speed_line,
    width_table,
)
from onnx_subprune.report.speed_tables import latency_table, node_table, operator_table
from onnx_subprune.report.structure_tables import comparison_lines, frozen_table, group_table, notice_lines, totals
from onnx_subprune.report.write import check_name, is_page, write_json, write_report

__all__ = [
    "Document",
    "Environment",
    "accuracy_table",
    "check_name",
    "comparison_lines",
    "cost_table",
    "drop_line",
    "environment_table",
    "examine",
    "fidelity_table",
    "forecast_line",
    "frozen_table",
    "group_table",
    "is_page",
    "latency_table",
    "node_table",
    "notice_lines",
    "odd_widths_line",
    "operator_table",
    "oracle_line",
    "output_error_line",
    "perplexity_table",
    "plot",
    "progress_bar",
    "rank_table",
    "speed_line",
    "to_json",
    "totals",
    "versions",
    "width_table",
    "write_json",
    "write_report",
]
