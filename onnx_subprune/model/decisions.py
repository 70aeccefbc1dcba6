"""Where a network decides, and the tensors at which two networks of the same inputs can be compared.

An operator *decides* where it jumps, counts or chooses: ArgMax, TopK, NonMaxSuppression, Round, a cast to integers, a
size or an index computed from data, the condition of an If. Behind a decision two networks that differ by a rounding
may differ by any amount, or in the sizes of their tensors. They are compared all the same, in two ways that hold:

- at the **sources** of every decision, the last continuous tensors before it;
- at the outputs, with the decisions of the first network fed to the second (`model.compared_models`): given the same
  decisions, the rest is continuous and has the same sizes.

An output of a Sigmoid, Softmax or Tanh, also behind operators that only move values about, is compared before it, and
so is the result of a Greater, Equal or Less (`model.saturation`), in the branches of an If too (`model.branch_ends`).
Inside a network these are left alone, for activations that are written out hold them, and most are continuous.

A tensor *varies* where it depends on weights: what depends on the inputs alone is the same in both networks, whatever
is decided by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from onnx_subprune.model.branch_ends import branch_ends
from onnx_subprune.model.protos import ONNX_DOMAINS, bodies, references
from onnx_subprune.model.saturation import before_saturation

__all__ = ["ComparisonPoint", "Comparisons", "Decision", "comparisons_of", "varying_tensors"]

_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)

DECIDING: Mapping[str, tuple[int, ...] | None] = {
    "ArgMax": None,
    "ArgMin": None,
    "Bernoulli": None,
    "Ceil": None,
    "DynamicQuantizeLinear": None,
    "Floor": None,
    "Hardmax": None,
    "MaxPool": (1,),
    "Multinomial": None,
    "NonMaxSuppression": None,
    "NonZero": None,
    "QuantizeLinear": None,
    "Round": None,
    "Sign": None,
    "TopK": (1,),
    "Unique": None,
}
"""Operators that decide by what they read, with the outputs that hold the decision; None for all."""

STEERING: Mapping[str, tuple[int, ...]] = {
    "ArrayFeatureExtractor": (1,),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "OneHot": (0, 1),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "RoiAlign": (2,),
    "Scatter": (1,),
    "ScatterElements": (1,),
    "ScatterND": (1,),
    "SequenceAt": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
"""Operators with inputs that say which values, or how many, the output holds."""

_WEIGHTED = ("Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN")
_SIZES = ("Shape", "Size")


@dataclass(frozen=True)
class Decision:
    """A tensor that jumps.

    Attributes:
        tensor: its name.
        operator: that decides.
        node: its name.
        sources: the continuous tensors that the decision is made from.

    """

    tensor: str
    operator: str
    node: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonPoint:
    """A tensor at which two networks are compared.

    Attributes:
        tensor: its name.
        outputs: the outputs of the network that it stands for.
        reason: why it is not the output itself; None where it is.

    """

    tensor: str
    outputs: tuple[str, ...]
    reason: str | None = None


@dataclass(frozen=True)
class Comparisons:
    """How networks with these outputs are compared.

    Attributes:
        points: where; in the order of the outputs.
        decisions: what the second network is given of the first one's; in graph order.

    """

    points: tuple[ComparisonPoint, ...]
    decisions: tuple[Decision, ...]


def comparisons_of(model: onnx.ModelProto, at: Sequence[str] = ()) -> Comparisons:
    """Return where a network is compared with another of the same inputs and outputs.

    Args:
        model: the network.
        at: names of tensors to compare instead of those that follow from the outputs.

    """
    scope = _Scope.of_model(model)
    makers = {name: node for node in model.graph.node for name in node.output if name}
    decisions = {decision.tensor: decision for decision in scope.decisions}
    if at:
        return Comparisons(tuple(ComparisonPoint(name, (), "asked for") for name in at), tuple(scope.decisions))
    branches = {output: (end.tensor, end.reason) for output, end in branch_ends(model.graph).items()}
    points: dict[str, tuple[list[str], str | None]] = {}
    for output in (value.name for value in model.graph.output):
        own: Mapping[str, str | None] = {}
        if output in scope.varying:
            own = before_saturation(output, makers, scope.varying, branches) or {output: None}
        for tensor, reason in own.items():
            points.setdefault(tensor, ([], reason))[0].append(output)
        for decision in _decisions_behind(output, makers, decisions):
            for source in decision.sources:
                walked = before_saturation(source, makers, scope.varying, branches) or (source,)
                for tensor in walked:
                    reason = f"{decision.operator} '{decision.node}' decides by it"
                    points.setdefault(tensor, ([], reason))[0].append(output)
    listed = [ComparisonPoint(name, tuple(dict.fromkeys(of)), why) for name, (of, why) in points.items()]
    if not listed:
        # Nothing depends on weights that this walk knows: all that is computed counts.
        for name in (value.name for value in model.graph.output):
            before = before_saturation(name, makers, makers, branches)
            listed += [ComparisonPoint(tensor, (name,), reason) for tensor, reason in before.items()]
            listed += [] if before else [ComparisonPoint(name, (name,))]
    return Comparisons(tuple(listed), tuple(scope.decisions))


def varying_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors of the main graph that depend on weights and inputs without a jump: no decisions.

    Args:
        model: the network.

    """
    return frozenset(_Scope.of_model(model).varying)


@dataclass
class _Scope:
    """What is known of the tensors of a graph and of what surrounds it.

    Attributes:
        constant: names that depend on weights alone, and whether they hold floats in two axes or more.
        varying: names that depend on weights and inputs.
        functions: local functions by domain and name.
        decisions: found so far, in graph order.

    """

    constant: dict[str, bool] = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)
    functions: Mapping[tuple[str, str], onnx.FunctionProto] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)

    @classmethod
    def of_model(cls, model: onnx.ModelProto) -> _Scope:
        functions = {(function.domain, function.name): function for function in model.functions}
        scope = cls(functions=functions)
        scope.enter(model.graph)
        return scope

    def enter(self, graph: onnx.GraphProto) -> None:
        """Go through a graph in order."""
        for tensor in graph.initializer:
            self.constant[tensor.name] = tensor.data_type in _FLOATS and len(tensor.dims) > 1
        for node in graph.node:
            self.visit(node)

    def inner(self) -> _Scope:
        """Return a scope for a body: it sees all that is known here."""
        return _Scope(dict(self.constant), set(self.varying), self.functions)

    def visit(self, node: onnx.NodeProto) -> None:
        """Work out what a node's outputs are."""
        reads = [name for name in (*node.input, *_captured(node)) if name]
        outputs = [name for name in node.output if name]
        if node.op_type == "Constant" or (reads and all(name in self.constant for name in reads)):
            weight = node.op_type != "Constant" and any(self.constant[name] for name in reads)
            self.constant.update(dict.fromkeys(outputs, weight or _is_matrix(node)))
            return
        varying = [name for name in reads if name in self.varying]
        forced = self._steered(node) if node.domain in ONNX_DOMAINS else None
        if forced:
            varying = [name for name in varying if name in self.varying]
        if node.op_type in _SIZES:
            return
        body = self._body(node)
        if body is not None and body.decisions:
            self._decide(node, outputs, varying or reads)
        elif varying and (decided := _decided(node)):
            self._decide(node, [name for name in decided if name], varying)
            self.varying.update(name for name in outputs if name not in decided)
        elif varying or (body is None and self._is_weighted(node)) or (body is not None and body.varying):
            self.varying.update(outputs)

    def _steered(self, node: onnx.NodeProto) -> bool:
        """Make decisions of inputs that say which values, or how many, the output holds, and vary."""
        places = STEERING.get(node.op_type, ())
        steering = [node.input[place] for place in places if place < len(node.input) and node.input[place]]
        found = [name for name in steering if name in self.varying]
        for name in found:
            self.varying.discard(name)
            self.decisions.append(Decision(name, node.op_type, node.name or node.output[0], (name,)))
        return bool(found)

    def _decide(self, node: onnx.NodeProto, tensors: Sequence[str], sources: Sequence[str]) -> None:
        where = node.name or node.output[0]
        unique = tuple(dict.fromkeys(name for name in sources if name in self.varying))
        self.decisions += [Decision(tensor, node.op_type, where, unique) for tensor in tensors]

    def _body(self, node: onnx.NodeProto) -> _Scope | None:
        """Return what is known at the end of a node's bodies; None where it has none."""
        function = self.functions.get((node.domain, node.op_type))
        if function is not None:
            return self._called(node, function)
        graphs = list(bodies(node))
        if not graphs:
            return None
        merged = _Scope()
        for graph in graphs:
            scope = self.inner()
            before = set(scope.varying)
            if node.op_type in ("Loop", "Scan") and any(name in self.varying for name in node.input):
                scope.varying.update(value.name for value in graph.input)
            scope.enter(graph)
            if node.op_type == "Loop" and graph.output[0].name in scope.varying:
                condition = graph.output[0].name
                scope.decisions.append(Decision(condition, "Loop", node.name or node.output[0], (condition,)))
            outputs = {value.name for value in graph.output}
            merged.varying |= (scope.varying - before) & outputs | (outputs & before)
            merged.decisions += scope.decisions
        return merged

    def _called(self, node: onnx.NodeProto, function: onnx.FunctionProto) -> _Scope:
        scope = _Scope(functions=self.functions)
        for formal, actual in zip(function.input, node.input, strict=False):
            if actual in self.varying:
                scope.varying.add(formal)
            elif actual in self.constant:
                scope.constant[formal] = self.constant[actual]
        for inner in function.node:
            scope.visit(inner)
        return _Scope(varying=scope.varying & set(function.output), decisions=scope.decisions)

    def _is_weighted(self, node: onnx.NodeProto) -> bool:
        """Whether a node joins weights to what depends on the inputs alone."""
        if node.domain not in ONNX_DOMAINS:
            return any(self.constant.get(name, False) for name in node.input)
        if node.op_type == "Gather":
            return self.constant.get(node.input[0], False)
        return node.op_type in _WEIGHTED and any(self.constant.get(name, False) for name in node.input)


def _captured(node: onnx.NodeProto) -> Collection[str]:
    """Return the names that the bodies of a node read, their own among them."""
    names: set[str] = set()
    for body in bodies(node):
        names |= references(body)
    return sorted(names)


def _is_matrix(node: onnx.NodeProto) -> bool:
    return any(
        attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _FLOATS and len(attribute.t.dims) > 1
        for attribute in node.attribute
    )


def _decided(node: onnx.NodeProto) -> list[str]:
    """Return the outputs of a node that jump when what it reads moves."""
    if node.domain not in ONNX_DOMAINS:
        return []
    if node.op_type == "Cast":
        to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)
        return [] if to in _FLOATS else list(node.output)
    if node.op_type not in DECIDING:
        return []
    places = DECIDING[node.op_type]
    return [name for place, name in enumerate(node.output) if places is None or place in places]


def _decisions_behind(
    name: str, makers: Mapping[str, onnx.NodeProto], decisions: Mapping[str, Decision]
) -> list[Decision]:
    """Return the decisions that an output depends on, also on those that these depend on themselves."""
    found: dict[str, Decision] = {}
    pending, seen = [name], {name}
    while pending:
        tensor = pending.pop()
        if tensor in decisions:
            found[tensor] = decisions[tensor]
        node = makers.get(tensor)
        for read in () if node is None else (*node.input, *_captured(node)):
            if read and read not in seen:
                seen.add(read)
                pending.append(read)
    return [found[tensor] for tensor in decisions if tensor in found]
