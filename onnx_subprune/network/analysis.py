"""A model taken apart: normalised, its structure inferred."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnx_subprune import report
from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.errors import OptionError
from onnx_subprune.formatting import count, html_table
from onnx_subprune.model import (
    Cost,
    InputSpec,
    ModelSource,
    Scratch,
    fingerprint,
    has_placed,
    input_specs,
    measure_cost,
    open_model,
    runnable_shapes,
    without_overridable,
)
from onnx_subprune.model.decisions import Comparisons, comparisons_of
from onnx_subprune.model.made_inputs import made_inputs
from onnx_subprune.model.named_points import check_points
from onnx_subprune.network.fixed_costs import with_fixed_costs
from onnx_subprune.network.forms import forms_of
from onnx_subprune.network.group_documents import (
    comparisons_document,
    frozen_document,
    group_document,
    notices_document,
)
from onnx_subprune.network.hoisting import Hoisted, Trial
from onnx_subprune.network.normalise import infer_structure, normalise
from onnx_subprune.structure import Structure

__all__ = ["Analysis", "ModelSource", "analyse", "first_sample", "take_apart"]


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """A model taken apart: what can be pruned, what cannot and why.

    Attributes:
        model: the model as it was given.
        normalised: the same function with constants and BatchNormalization folded, functions inlined.
        structure: groups and consumers of `normalised`.
        input_shapes: the sizes that MACs are counted with.
        fingerprint: of `model`.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.
        scratch: where new weights of a model go whose weights stay in files; they are gone with this object.
        refusals: normalising passes that were left out, each with the reason; something may not be pruned for it.
        sample: values of inputs that MACs are counted with, by name; made up where missing.
        outputs_at: tensors of the model to compare networks at, in the place of those that follow from its outputs.
        hoisted: branches that stand in the main graph of `normalised`; None where none do.

    """

    model: onnx.ModelProto
    normalised: onnx.ModelProto
    structure: Structure
    input_shapes: dict[str, tuple[int, ...]]
    fingerprint: str
    prune_normalised: bool = False
    scratch: Scratch | None = None
    refusals: tuple[str, ...] = ()
    sample: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs_at: tuple[str, ...] = ()
    hoisted: Hoisted | None = None

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Names, types and shapes of the model's inputs."""
        return input_specs(self.model)

    @cached_property
    def cost(self) -> Cost:
        """The cost of the model as given."""
        return self.measure_cost(self.model)

    def measure_cost(self, model: onnx.ModelProto) -> Cost:
        """Return the cost of a model for inputs like those that this one was taken apart with.

        Args:
            model: with the same inputs.

        """
        return measure_cost(model, self.input_shapes, self.sample)

    @cached_property
    def forms(self) -> tuple[str, ...]:
        """Forms of the model that keep layers from being pruned, a line each."""
        return forms_of(self.model)

    @cached_property
    def comparisons(self) -> Comparisons:
        """Where networks are compared with this one."""
        return comparisons_of(self.normalised, self.outputs_at)

    @property
    def prunable_share(self) -> dict[str, float]:
        """The shares of `parameters` and `macs` that go when every prunable group is emptied: those that touch one."""
        empty = {group.atom: 0 for group in self.structure.prunable}
        measures = {"parameters": self.structure.parameters, "macs": self.structure.macs}
        totals = {name: measure({}) for name, measure in measures.items()}
        return {name: 1 - measure(empty) / totals[name] if totals[name] else 0.0 for name, measure in measures.items()}

    def document(self) -> report.Document:
        """Return what can be pruned and what cannot as plain data: the document of `inspect --json`."""
        return {
            "format": "onnx_subprune.inspect/1",
            "versions": report.versions(),
            "fingerprint": self.fingerprint,
            "input_shapes": {name: list(shape) for name, shape in self.input_shapes.items()},
            "dense": asdict(self.cost),
            "prunable_share": self.prunable_share,
            "groups": [group_document(group) for group in self.structure.prunable],
            "frozen": [frozen_document(group) for group in self.structure.frozen],
            **comparisons_document(self.comparisons),
            **notices_document(self.structure, self.refusals, self.forms),
        }

    def __repr__(self) -> str:
        groups, prunable = self.structure.groups, self.structure.prunable
        units = sum(group.size for group in prunable)
        return (
            f"<Analysis {self.fingerprint[:12]}: {len(prunable)} of {len(groups)} groups can be pruned, "
            f"{units:,} units; {count(self.structure.macs({}))} MACs>"
        )

    def _repr_html_(self) -> str:
        prunable = [
            (
                g.name,
                str(g.size),
                count(g.macs),
                ", ".join(dict.fromkeys(reader.name for reader in g.consumers or g.contractions)),
            )
            for g in self.structure.prunable
        ]
        frozen = [(g.name, str(g.size), count(g.macs), g.reasons[0]) for g in self.structure.frozen]
        tables = (("consumers", prunable, "Can be pruned"), ("why", frozen, "Frozen"))
        return "".join(html_table(("group", "units", "MACs", last), rows, title) for last, rows, title in tables)


def analyse(
    model: ModelSource,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    prune_normalised: bool = False,
    strip_initializer_inputs: bool = False,
    data: Any = None,
    outputs_at: Sequence[str] = (),
) -> Analysis:
    """Take a model apart.

    Args:
        model: a path or a loaded model.
        input_shapes: sizes of dynamic inputs to count multiply-accumulates with; where not given 1, an empty past, or
            others where the model does not run with these.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.
        strip_initializer_inputs: whether weights that the model lists among its inputs are constants.
        data: inputs, anything that `calibration.open_data` takes: sizes that are not given are those of the first
            sample, whose values may steer sizes as well.
        outputs_at: tensors of the model to compare networks at; they stay whole, as outputs do.

    Raises:
        ModelError: the model cannot be read, or is broken.
        DataError: the data does not fit the model.
        OptionError: `input_shapes` does not fit the inputs, or networks cannot be compared at one of `outputs_at`.

    """
    proto = open_model(model)
    if strip_initializer_inputs:
        proto = without_overridable(proto)
    sample = {} if data is None else first_sample(open_data(data, input_specs(proto), samples=1))
    shapes = {name: value.shape for name, value in sample.items()} | dict(input_shapes or {})
    return take_apart(proto, shapes, prune_normalised=prune_normalised, sample=sample, outputs_at=outputs_at)


def first_sample(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return the first sample of a data set, by input name."""
    return dict(next(iter(dataset.batches(1))))


def take_apart(
    proto: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    prune_normalised: bool = False,
    sample: Mapping[str, np.ndarray] | None = None,
    outputs_at: Sequence[str] = (),
    trials: Sequence[Trial] = (),
) -> Analysis:
    """Take a model apart that was checked (`open_model`); see `analyse`.

    Branches of Ifs are hoisted where they run on the sample and on all `trials`.
    """
    check_points(proto, outputs_at)
    scratch = Scratch() if has_placed(proto) else None
    sample = sample or {}
    shapes = runnable_shapes(proto, input_shapes, sample)
    with _paused_collection():
        normalised = normalise(
            proto,
            shapes,
            scratch,
            sample,
            compared_at=outputs_at,
            trials=[_inputs(proto, shapes, sample), *trials],
        )
        known = {**normalised.observed, **shapes}
        inferred = infer_structure(normalised.model, known, prune_normalised=prune_normalised, compared_at=outputs_at)
        origins = {} if normalised.hoisted is None else normalised.hoisted.origins
        structure = with_fixed_costs(replace(inferred, origins=origins), normalised.model, shapes, sample)
    return Analysis(
        proto,
        normalised.model,
        structure,
        shapes,
        fingerprint(proto),
        prune_normalised,
        scratch,
        normalised.refusals,
        sample,
        tuple(dict.fromkeys(outputs_at)),
        normalised.hoisted,
    )


def _inputs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], sample: Mapping[str, np.ndarray]) -> Trial:
    """Return inputs to try branches with: those of the sample, and made up where there are none."""
    try:
        made = made_inputs(input_specs(model), shapes)
    except OptionError:
        return sample
    return made | {name: value for name, value in sample.items() if value.shape == shapes.get(name)}


@contextmanager
def _paused_collection() -> Iterator[None]:
    """Pause Python's collector of cycles.

    A graph is hundreds of thousands of objects that all stay. While they are made the collector walks over them again
    and again and finds nothing: a quarter of the time on a graph of 20,000 nodes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
