"""Two networks on the same inputs, compared where that means something: see `model.decisions`.

The first network runs as it is. The second is given the decisions of the first, and both draw the same random numbers,
so that what is left of a difference is continuous in the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.model import Runtime, run
from onnx_subprune.model.compared_models import comparable_tensors, known_sizes, opened_for_comparison, sized_otherwise
from onnx_subprune.model.decisions import ComparisonPoint, comparisons_of

__all__ = ["ComparedNetwork", "ReferenceNetwork", "ReferenceRun"]

Array = NDArray[Any]
_TYPES = {"float": "FLOAT", "double": "DOUBLE", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """One run of the first network.

    Attributes:
        feeds: its inputs.
        values: of the comparison points and of the outputs that are no decisions, as far as they hold numbers.
        decisions: values of its decisions.

    """

    feeds: Mapping[str, Array]
    values: Mapping[str, Array]
    decisions: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        """Size of the values and decisions, in bytes."""
        return sum(value.nbytes for value in (*self.values.values(), *self.decisions.values()))


class ReferenceNetwork:
    """The network that others are compared with.

    Args:
        model: the network.
        runtime: where it runs.
        at: tensors to compare at, in the place of those that follow from its outputs.

    Attributes:
        named: those tensors.

    """

    def __init__(self, model: onnx.ModelProto, runtime: Runtime | None = None, at: Sequence[str] = ()) -> None:
        self._model = model
        self.runtime = runtime or Runtime()
        self.comparisons = comparisons_of(model, at)
        self.named = tuple(at)

    @property
    def points(self) -> tuple[ComparisonPoint, ...]:
        """Where networks are compared with this one."""
        return self.comparisons.points

    def points_in(self, there: Collection[str]) -> dict[str, list[str]]:
        """Return where a network is compared, with the outputs that each of these tensors stands for.

        A point that is gone with its branch is replaced by the outputs that it stands for.

        Args:
            there: names of the network's tensors that are no decisions.

        """
        points: dict[str, list[str]] = {}
        for point in self.points:
            outputs = [name for name in point.outputs if name in there]
            for name in [point.tensor] if point.tensor in there else outputs:
                points.setdefault(name, [])
            if point.tensor in there and point.reason is not None:
                points[point.tensor] = outputs
        return points or {name: [] for name in self.outputs}

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that are no decisions."""
        decisions = {decision.tensor for decision in self.comparisons.decisions}
        return tuple(value.name for value in self._model.graph.output if value.name not in decisions)

    @cached_property
    def _session(self) -> ort.InferenceSession:
        names = [*self.outputs, *(point.tensor for point in self.points)]
        names += [decision.tensor for decision in self.comparisons.decisions]
        return self.runtime.session(opened_for_comparison(self._model, list(dict.fromkeys(names))))

    @cached_property
    def decision_sizes(self) -> Mapping[str, Sequence[int | str | None]]:
        """Sizes of the decisions by name, as far as they are known without a run."""
        return known_sizes(self._model, sorted(self.decision_types))

    @cached_property
    def decision_types(self) -> dict[str, int]:
        """Element types (`TensorProto.DataType`) of the decisions by name, those that are tensors."""
        decisions = {decision.tensor for decision in self.comparisons.decisions}
        tensors = [value for value in self._session.get_outputs() if value.type.startswith("tensor(")]
        return {value.name: _element_type(value.type) for value in tensors if value.name in decisions}

    def run(self, feeds: Mapping[str, Array]) -> ReferenceRun:
        """Run the network once.

        Raises:
            DataError: the feeds do not fit the network.
            ModelError: the network fails on them.
            OptionError: a tensor to compare at holds no floats.

        """
        values = run(self._session, feeds)
        decisions = {name: values.pop(name) for name in self.decision_types}
        numbers = {name: value for name, value in values.items() if _is_numeric(value)}
        self._check_named(values)
        return ReferenceRun(feeds, numbers, decisions)

    def _check_named(self, values: Mapping[str, Any]) -> None:
        """Refuse a tensor that was named and holds no floats: of some, only a run says what they hold."""
        for name in self.named:
            value = values.get(name)
            if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
                kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
                raise OptionError(f"expected a tensor of floats to compare networks at, found '{name}' of {kind}")


class ComparedNetwork:
    """A network that is compared with a reference.

    Args:
        model: takes the same inputs and gives the same outputs as the reference.
        reference: the other network.
        at: outputs to compare at, in the place of the points of the reference.
        optimise: whether ONNX Runtime may fuse its operators.
        own: decisions that it takes on its own, beside those below.

    Attributes:
        own: the decisions that it takes on its own: those that are of other sizes in it, as they are about units that
            are gone.

    Raises:
        ModelError: it lacks a tensor that the reference is to be compared at.

    """

    def __init__(
        self,
        model: onnx.ModelProto,
        reference: ReferenceNetwork,
        *,
        at: Sequence[str] = (),
        optimise: bool = True,
        own: Collection[str] = (),
    ) -> None:
        there = comparable_tensors(model) | {value.name for value in model.graph.input}
        missing = next((name for name in reference.named if name not in there), None)
        if missing is not None:
            raise ModelError(
                f"expected tensor '{missing}' in both networks to compare them at, found it in "
                "one only; name one that both have"
            )
        self._whole = frozenset((*reference.outputs, *reference.named))
        decisions = {name for name in reference.decision_types if name in there}
        self.own = frozenset(own) | sized_otherwise(reference.decision_sizes, model)
        self._decisions = decisions - self.own
        self._stand_ins = dict.fromkeys(at, ()) if at else reference.points_in(there - decisions)
        self._points = tuple(self._stand_ins)
        types = {name: kind for name, kind in reference.decision_types.items() if name in self._decisions}
        wanted = dict.fromkeys((*self._points, *(name for outputs in self._stand_ins.values() for name in outputs)))
        opened = opened_for_comparison(model, list(wanted), types)
        self._session = reference.runtime.session(opened, optimise=optimise)

    def run(self, reference: ReferenceRun) -> dict[str, Array]:
        """Return the values at the points, on the inputs and with the decisions of a run of the reference.

        A point that is no output and has units less than in the reference is replaced by the outputs that it stands
        for.

        Raises:
            DataError, ModelError: as for `ReferenceNetwork.run`.

        """
        decisions = {name: reference.decisions[name] for name in sorted(self._decisions)}
        expected = reference.values
        values = run(self._session, {**reference.feeds, **decisions})
        compared: dict[str, Array] = {}
        for name in self._points:
            if name not in expected:
                continue
            if name in self._whole or values[name].shape == expected[name].shape:
                compared[name] = values[name]
            else:
                compared |= {each: values[each] for each in self._stand_ins.get(name, ()) if each in expected}
        return compared


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _element_type(text: str) -> int:
    """Return the element type that ONNX Runtime writes as `tensor(int64)`."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return int(onnx.TensorProto.DataType.Value(_TYPES.get(name, name.upper())))
