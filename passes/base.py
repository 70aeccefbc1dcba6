"""What a pass is: an edit of a graph that says what it requires and what it ensures.

Around every run the base class checks what the pass declares, and what every pass owes: the inputs and outputs of the
graph keep their names and order, and the wiring stays valid. A requirement that does not hold is a refusal, a value
with a reason a person can read; a promise that does not hold is a bug of ours. Where a pass must not be left out, as in
all that makes a pruned network, a refusal is one too: such passes are `Mandatory`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.errors import InternalError
from onnx_subprune.passes.wiring import defect, names_known

__all__ = ["Mandatory", "Pass", "PassResult", "Sequence"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassResult:
    """What came of a pass, or of several.

    Attributes:
        graph: the same object, edited in place.
        modified: whether it changed.
        refusals: for each pass that did not run its name and why.
        sound: whether the wiring is known to be valid.

    """

    graph: gs.Graph
    modified: bool
    refusals: tuple[str, ...] = ()
    sound: bool = False


class Pass(ABC):
    """An edit of a graph in place; subclasses write `run` and, where they have any, their conditions."""

    @property
    def name(self) -> str:
        """What the pass is called in logs and messages."""
        return type(self).__name__

    def requires(self, graph: gs.Graph) -> str | None:  # noqa: ARG002 - subclasses look at it
        """Return why the pass cannot run on this graph, or None when it can.

        Args:
            graph: as it is before the run; it stays unchanged here.

        """
        return None

    def ensures(self, graph: gs.Graph) -> str | None:  # noqa: ARG002 - subclasses look at it
        """Return which promise of the pass does not hold, or None when all do.

        Args:
            graph: as the run left it; it stays unchanged here.

        """
        return None

    @abstractmethod
    def run(self, graph: gs.Graph) -> bool:
        """Edit the graph and return whether anything changed.

        Args:
            graph: that `requires` had nothing against; it is edited in place.

        """

    def __call__(self, graph: gs.Graph, *, sound: bool = False) -> PassResult:
        """Check, run, check.

        Args:
            graph: edited in place.
            sound: whether the wiring is known to be valid, so that it need not be looked at before.

        Raises:
            InternalError: the pass broke its own promise or the graph.

        """
        reason = self.requires(graph)
        if reason is not None:
            _logger.warning("%s was skipped: %s", self.name, reason)
            return PassResult(graph, modified=False, refusals=(f"{self.name}: {reason}",), sound=sound)
        interface, broken = _interface(graph), None if sound else defect(graph)
        with names_known(graph):
            modified = self.run(graph)
        if _interface(graph) != interface:
            raise self._failure("the inputs and outputs of the graph changed")
        # A model that came in broken is not this pass's doing.
        complaint = self.ensures(graph) or (defect(graph) if broken is None else None)
        if complaint is not None:
            raise self._failure(complaint)
        return PassResult(graph, modified, sound=broken is None)

    def _failure(self, complaint: str) -> InternalError:
        return InternalError(f"pass {self.name} left the graph wrong: {complaint}; please report this")


class Sequence:
    """Passes that run one after the other and may be left out singly; itself callable like a pass."""

    def __init__(self, *passes: Pass) -> None:
        self.passes = passes

    def __call__(self, graph: gs.Graph) -> PassResult:
        """Run all of them; modified if one of them changed something, with the refusals of all."""
        result = PassResult(graph, modified=False)
        for edit in self.passes:
            latest = edit(graph, sound=result.sound)
            refusals = (*result.refusals, *latest.refusals)
            result = PassResult(graph, result.modified or latest.modified, refusals, latest.sound)
        return result


class Mandatory(Sequence):
    """Passes that may not be left out: without one the network would not be the one that was asked for."""

    def __call__(self, graph: gs.Graph) -> PassResult:
        """Run all of them.

        Raises:
            InternalError: a pass refused to run; the message says which and why.

        """
        result = super().__call__(graph)
        if result.refusals:
            raise InternalError(f"expected every pass to run, but {'; '.join(result.refusals)}; please report this")
        return result


def _interface(graph: gs.Graph) -> tuple[list[str], list[str]]:
    return [tensor.name for tensor in graph.inputs], [tensor.name for tensor in graph.outputs]
