"""Two networks on the same inputs, compared where that means something: see `model.decisions`.

The first network runs as it is. The second is given the decisions of the first, and both draw the same random numbers,
so that what is left of a difference is continuous in the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.model import Runtime, run
from onnx_subprune.model.decisions import ComparisonPoint, comparisons_of, opened_for_comparison

__all__ = ["ComparedNetwork", "ReferenceNetwork", "ReferenceRun"]

Array = NDArray[Any]
_TYPES = {"float": "FLOAT", "double": "DOUBLE", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """One run of the first network.

    Attributes:
        feeds: its inputs.
        points: values at the comparison points that are numbers.
        decisions: values of its decisions.

    """

    feeds: Mapping[str, Array]
    points: Mapping[str, Array]
    decisions: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        """Size of what is held besides the inputs, in bytes."""
        return sum(value.nbytes for value in (*self.points.values(), *self.decisions.values()))


class ReferenceNetwork:
    """The network that others are compared with.

    Args:
        model: the network.
        runtime: where it runs.
        at: tensors to compare at instead of those that follow from its outputs.

    """

    def __init__(self, model: onnx.ModelProto, runtime: Runtime | None = None, at: Sequence[str] = ()) -> None:
        self._model = model
        self.runtime = runtime or Runtime()
        self.comparisons = comparisons_of(model, at)

    @property
    def points(self) -> tuple[ComparisonPoint, ...]:
        """Where networks are compared with this one."""
        return self.comparisons.points

    @cached_property
    def _session(self) -> Any:
        names = [point.tensor for point in self.points] + [each.tensor for each in self.comparisons.decisions]
        return self.runtime.session(opened_for_comparison(self._model, list(dict.fromkeys(names))))

    @cached_property
    def decision_types(self) -> dict[str, int]:
        """Element types of the decisions by name."""
        decisions = {decision.tensor for decision in self.comparisons.decisions}
        return {
            value.name: _element_type(value.type) for value in self._session.get_outputs() if value.name in decisions
        }

    def run(self, feeds: Mapping[str, Array]) -> ReferenceRun:
        """Run the network once; ModelError or DataError as `model.run`."""
        values = run(self._session, feeds)
        points = {p.tensor: values[p.tensor] for p in self.points if np.asarray(values[p.tensor]).dtype.kind == "f"}
        return ReferenceRun(feeds, points, {name: values[name] for name in self.decision_types})


class ComparedNetwork:
    """A network that is compared with a reference.

    Args:
        model: takes the same inputs and gives the same outputs as the reference.
        reference: the other network.

    """

    def __init__(self, model: onnx.ModelProto, reference: ReferenceNetwork) -> None:
        made = {name for node in model.graph.node for name in node.output}
        made |= {value.name for value in model.graph.input}
        self._decisions = {name: kind for name, kind in reference.decision_types.items() if name in made}
        names = [p.tensor for p in reference.points if p.tensor in made and p.tensor not in self._decisions]
        # A point that is gone with its branch is replaced by the outputs that it stood for.
        own = {value.name for value in model.graph.output}
        for point in reference.points:
            if point.tensor not in made:
                names += [name for name in point.outputs if name in own and name not in self._decisions]
        self.points = tuple(dict.fromkeys(names))
        self._session = reference.runtime.session(opened_for_comparison(model, self.points, self._decisions))

    def run(self, reference: ReferenceRun) -> dict[str, Array]:
        """Return the values at the points, on the inputs and with the decisions of a run of the reference."""
        decisions = {name: reference.decisions[name] for name in self._decisions}
        return run(self._session, {**reference.feeds, **decisions}, self.points)


def _element_type(text: str) -> int:
    """Return the element type that ONNX Runtime writes as `tensor(int64)`."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return int(onnx.TensorProto.DataType.Value(_TYPES.get(name, name.upper())))
