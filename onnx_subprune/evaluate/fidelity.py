"""How far a pruned model's outputs are from the dense model's, without labels.

For every float output, over all samples: relative error ‖p - d‖ / ‖d‖, cosine, and the largest absolute difference.
Where a network decides (`model.decisions`), they are taken with the decisions of the dense network given to both; what
saturates or decides is compared before it as well.

What the outputs say is compared as it is, without anything given: how often classes, regions, boxes and text agree.
Hidden states and embeddings say none of these, and token by token is no text (`output_kinds`).
Outputs [samples, classes] also take the mean Kullback-Leibler divergence KL(softmax d ‖ softmax p) in nats; an output
that already holds probabilities is not normalised a second time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.calibration import DEFAULT_BATCH_SIZE, Dataset
from onnx_subprune.calibration.batch_trial import tried_batch_size
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.evaluate.anchor_boxes import AnchorBoxes, anchor_boxes
from onnx_subprune.evaluate.answers import Answers
from onnx_subprune.evaluate.decided_runs import DecidedRuns, DecidedValues
from onnx_subprune.evaluate.detections import DetectionLayout, MatchedBoxes
from onnx_subprune.evaluate.distances import Distances
from onnx_subprune.evaluate.output_kinds import OutputKinds
from onnx_subprune.formatting import html_table
from onnx_subprune.model import Runtime, check_model, run
from onnx_subprune.model.compared_models import seeded

__all__ = ["Fidelity", "OutputFidelity", "fidelity"]

logger = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True)
class OutputFidelity:
    """One output of the pruned model against the dense one, or a tensor inside.

    Attributes:
        relative_l2: ‖pruned - dense‖ / ‖dense‖; infinite if the pruned output is not finite where the dense one is.
            None where it is a decision, no floats, or never of one shape in both models.
        cosine: of the two outputs as vectors; 1 if both are zero. None likewise.
        max_abs: largest absolute difference. None likewise.
        agreement: share of samples, steps or pixels whose largest class is the same; of the entries that are equal for
            integers. None if there are no classes.
        kl: mean KL(dense ‖ pruned) in nats, or None if the output is not [samples, classes].
        iou: mean intersection over union of the classes of a map.
        boxes: share of the dense model's boxes that the pruned one finds: of the same class, and with an intersection
            over union of at least a half. Of both models boxes count that score at least a quarter.
        texts: share of the sequences of classes that say the same, with repeats merged and blanks taken out; None for
            networks that read token ids.
        lengths: mean relative difference of the sizes that differ; None where none does.
        reason: why a tensor inside is compared; None for outputs.
        compared_at: tensors inside that count in the place of an output that saturates or decides: its relative error
            may be any number where it is next to zero. None where the output counts itself.

    """

    relative_l2: float | None
    cosine: float | None
    max_abs: float | None
    agreement: float | None = None
    kl: float | None = None
    iou: float | None = None
    boxes: float | None = None
    texts: float | None = None
    lengths: float | None = None
    reason: str | None = None
    compared_at: tuple[str, ...] | None = None

    def document(self) -> dict[str, Any]:
        """Return the same as plain data; what only some outputs have is left out where there is none."""
        entries = asdict(self)
        always = [entry.name for entry in fields(self)][:5]
        return {name: value for name, value in entries.items() if name in always or value is not None}

    def label(self, name: str) -> str:
        """Return a name, and what it comes before where it is a tensor inside.

        >>> OutputFidelity(0.5, 0.9, 1.0, reason="Sigmoid 's' saturates behind it").label("logits")
        'logits, before Sigmoid'

        """
        if self.reason is None:
            return name
        operator, quote, _ = self.reason.partition(" '")
        return f"{name}, before {operator}" if quote else f"{name}, {self.reason}"


@dataclass(frozen=True)
class Fidelity:
    """How near the outputs of one model are to those of another, on the same samples.

    Attributes:
        outputs: by name of the output.
        samples: number of them.
        points: by name of the tensor inside, those at which models that decide or saturate are compared as well.

    """

    outputs: dict[str, OutputFidelity]
    samples: int
    points: dict[str, OutputFidelity] = field(default_factory=dict)

    @property
    def compared(self) -> dict[str, OutputFidelity]:
        """The outputs and the points."""
        return {**self.outputs, **self.points}

    @property
    def relative_l2(self) -> float:
        """The largest relative error of any output or point that counts; nan where none has one."""
        counted = [output.relative_l2 for output in self.compared.values() if output.compared_at is None]
        errors = [error for error in counted if error is not None]
        return max(errors, default=math.nan)

    def document(self) -> dict[str, Any]:
        """Return the same as plain data."""
        entries: dict[str, Any] = {
            "outputs": {name: output.document() for name, output in self.outputs.items()},
            "samples": self.samples,
        }
        if self.points:
            entries["points"] = {name: point.document() for name, point in self.points.items()}
        return entries

    def _repr_html_(self) -> str:
        columns = [column for column in FIGURES if column.head in _NOTEBOOK or column.is_in([self])]
        rows = [
            (output.label(name), *(column.cell(output) for column in columns)) for name, output in self.compared.items()
        ]
        head = ("output", *(column.head for column in columns))
        return html_table(head, rows, f"Fidelity on {self.samples} samples")


@dataclass(frozen=True)
class Figure:
    """A column of a table of fidelities.

    Attributes:
        head: its heading.
        name: of the attribute of `OutputFidelity`.
        style: how it is written, as for `format`.
        always: whether tables have it also where no output does.

    """

    head: str
    name: str
    style: str
    always: bool = False

    def cell(self, output: OutputFidelity) -> str:
        """Return the figure as text."""
        value = getattr(output, self.name)
        return "-" if value is None else format(value, self.style)

    def is_in(self, fidelities: Sequence[Fidelity]) -> bool:
        """Whether a column that is not in all tables is in one of these."""
        outputs = [output for fidelity in fidelities for output in fidelity.compared.values()]
        return not self.always and any(getattr(output, self.name) is not None for output in outputs)


FIGURES = (
    Figure("relative error", "relative_l2", ".2e", always=True),
    Figure("cosine", "cosine", ".6f", always=True),
    Figure("largest", "max_abs", ".2e", always=True),
    Figure("same class", "agreement", ".2%", always=True),
    Figure("KL (nats)", "kl", ".2e", always=True),
    Figure("mean IoU", "iou", ".2%"),
    Figure("same boxes", "boxes", ".2%"),
    Figure("same text", "texts", ".2%"),
    Figure("lengths off", "lengths", ".2%"),
)
_NOTEBOOK = ("relative error", "cosine", "same class")


def fidelity(
    dense: onnx.ModelProto,
    pruned: onnx.ModelProto,
    data: Dataset,
    *,
    providers: Sequence[str] = ("cpu",),
    batch_size: int = DEFAULT_BATCH_SIZE,
    threads: int | None = None,
    outputs_at: Sequence[str] = (),
) -> Fidelity:
    """Compare the outputs of two models on the same samples.

    Args:
        dense: the reference.
        pruned: gives outputs of the same names; sizes that follow from the data may differ.
        data: samples for both; labels are not read.
        providers: execution providers, most wanted first.
        batch_size: samples per run.
        threads: intra-op threads of the runtime; None for its own choice.
        outputs_at: tensors that both models have; distances are taken there, and no others.

    Returns:
        Errors and cosines of every output that holds floats, and how often those that hold numbers say the same.

    Raises:
        ModelError: a model is broken, the models' outputs differ in name, or none of them holds numbers.
        DataError: a sample does not fit.
        OptionError: models cannot be compared at one of `outputs_at`.

    """
    for model in (dense, pruned):
        check_model(model)
    runtime = Runtime(tuple(providers), threads, batch_size)
    # Operators that draw numbers draw the same ones in both.
    sessions = [runtime.session(seeded(model)) for model in (dense, pruned)]
    names = [output.name for output in sessions[0].get_outputs()]
    if names != (others := [output.name for output in sessions[1].get_outputs()]):
        raise ModelError(
            f"the same outputs expected in both models, found {names} and {others}; compare like with like"
        )
    decided = DecidedRuns(dense, pruned, runtime, outputs_at)
    totals = _Totals(decided.decisions, OutputKinds.of(dense), outputs_at, anchor_boxes(dense))
    # In a session of its own: one that has run goes on with other draws.
    batch_size = tried_batch_size(data, batch_size, lambda feeds: run(runtime.session(dense), feeds))
    samples = 0
    for feeds in data.batches(batch_size):
        expected, given = (run(session, feeds) for session in sessions)
        totals.add(expected, given, decided.run(feeds))
        samples += data.samples_in(feeds)
    if not totals.outputs:
        raise ModelError(f"an output that holds numbers expected, found {names}; such models cannot be compared")
    return totals.result(samples, decided)


def _numeric(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Return the outputs that are tensors of numbers; sequences and text are not compared."""
    numbers = {
        name: value for name, value in outputs.items() if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
    for name in outputs.keys() - numbers.keys():
        logger.debug("output '%s' holds no numbers and is not compared", name)
    return numbers


class _Totals:
    """The sums of all outputs and points.

    Args:
        decisions: tensors without distances.
        kinds: what the outputs are not.
        named: the only tensors with distances, where there are any.
        anchors: outputs that hold the boxes of all anchors.

    """

    def __init__(
        self,
        decisions: frozenset[str],
        kinds: OutputKinds,
        named: Sequence[str],
        anchors: Mapping[str, AnchorBoxes],
    ) -> None:
        self._decisions = decisions
        self._kinds = kinds
        self._named = frozenset(named)
        self._anchors = anchors
        self.outputs: dict[str, _Sums] = {}
        self._points: dict[str, Distances] = {}
        self._layout: DetectionLayout | None = None
        self._boxes = MatchedBoxes()

    def add(self, dense: Mapping[str, Any], pruned: Mapping[str, Any], decided: DecidedValues | None) -> None:
        """Add plain runs of both networks, and runs with the decisions of the dense one where there are any."""
        expected = _numeric(dense)
        if not self.outputs:
            self._layout = DetectionLayout.found_in(expected, self._anchors)
        if self._layout is not None:
            self._boxes.add(self._layout, expected, pruned)
        for name, value in expected.items():
            classes = self._layout is None or name not in self._layout.outputs
            classes = classes and name not in self._kinds.activations
            sums = self.outputs.setdefault(name, _Sums(name, classes=classes, texts=not self._kinds.tokens))
            sums.answers.add(value, pruned[name])
            if name in self._decisions or (self._named and name not in self._named):
                continue
            if decided is None or not self._decisions:
                sums.distances.add(value, pruned[name])
            elif name in decided[0] and name in decided[1]:
                sums.distances.add(decided[0][name], decided[1][name])
        if decided is not None:
            for name in decided[1].keys() - self.outputs.keys():
                if name in self._named:
                    _check_shapes(name, decided[0][name], decided[1][name])
                self._points.setdefault(name, Distances()).add(decided[0][name], decided[1][name])

    def result(self, samples: int, decided: DecidedRuns) -> Fidelity:
        """Return the figures."""
        outputs = {}
        for name, sums in self.outputs.items():
            has_boxes = self._layout is not None and name == self._layout.boxes
            outputs[name] = sums.result(boxes=self._boxes.share if has_boxes else None)
        points = {
            name: OutputFidelity(*distances.result(), reason=reason)
            for name, reason in decided.interior.items()
            if (distances := self._points.get(name)) is not None and distances.result()[0] is not None
        }
        for name, inside in decided.replaced.items():
            if name in outputs and (there := tuple(point for point in inside if point in points)):
                outputs[name] = replace(outputs[name], compared_at=there)
        return Fidelity(outputs, samples, points)


def _check_shapes(name: str, dense: Array, pruned: Array) -> None:
    if dense.shape != pruned.shape:
        raise DataError(
            f"tensor '{name}' expected of shape {dense.shape} as in the dense model, found {pruned.shape}; compare at "
            "one that lost no units"
        )


class _Sums:
    """The distances and answers of one output."""

    def __init__(self, name: str, *, classes: bool = True, texts: bool = True) -> None:
        self._name = name
        self.distances, self.answers = Distances(), Answers(name, classes=classes, texts=texts)

    def add(self, dense: Array, pruned: Array) -> None:
        """Add one run in which both networks answer alike.

        Raises:
            DataError: the shapes differ.

        """
        if dense.shape != pruned.shape:
            raise DataError(
                f"output '{self._name}' expected of shape {dense.shape} as in the dense model, found {pruned.shape}; "
                "compare models that answer alike"
            )
        self.distances.add(dense, pruned)
        self.answers.add(dense, pruned)

    def result(self, *, boxes: float | None = None) -> OutputFidelity:
        """Return the figures.

        Args:
            boxes: the share of boxes that are found.

        """
        answers = self.answers
        return OutputFidelity(
            *self.distances.result(),
            agreement=answers.agreement,
            kl=answers.kl,
            iou=answers.iou,
            boxes=boxes,
            texts=answers.texts,
            lengths=answers.lengths,
        )
