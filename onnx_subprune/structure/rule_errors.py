"""Bugs in operator rules: for users they cost pruning and are told; in tests they fail.

A rule that does not understand a node says so, and that is a fact about the network. Any other error is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RAISED", "RuleError"]

RAISED = False
"""Whether an error in a rule ends inference, as tests want it, instead of freezing what the node touches."""


@dataclass(frozen=True)
class RuleError:
    """The rule of `operator` raised `error` (its type and text) at the node of the name `node`."""

    operator: str
    node: str
    error: str
