"""A network under construction, which the steps of all families add nodes to."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper

Shape = tuple[int, ...]
BATCH = 2
WIDEST, LARGEST = 48, 6000
MS = "com.microsoft"


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


class Network:
    """Tensors to go on from: `maps` [batch, channels, height, width] and `rows` [batch, positions, channels]."""

    def __init__(self, unknown: str = "", opset: int = 17) -> None:
        self.unknown = unknown
        self.dynamic = bool(unknown)
        self.opset = opset
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.given: list[tuple[str, tuple[int | str, ...]]] = []
        self.weights: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {"x": (BATCH, 4, 6, 6)}
        self.maps = ["x"]
        self.rows: list[str] = []

    def add(self, op: str, inputs: Sequence[str], shape: Shape, outputs: int = 1, **attributes: object) -> str:
        """Add a node and return its first output; what the opset wants otherwise is written as it wants it."""
        inputs = list(inputs)
        if op.startswith("Reduce") and "axes" in attributes and (self.opset >= 18 or op == "ReduceSum"):
            inputs.append(self.ints(list(attributes.pop("axes"))))  # type: ignore[call-overload]
        if op == "Split" and len(inputs) == 1 and self.opset >= 18:
            attributes["num_outputs"] = outputs
        names = [f"t{len(self.shapes) + i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}_{op}", **attributes))
        for name in names:
            self.shapes[name] = shape
        return names[0]

    def last(self, index: int, shape: Shape) -> str:
        """Return a further output of the node that was added last."""
        name = str(self.nodes[-1].output[index])
        self.shapes[name] = shape
        return name

    def same(self, op: str, *inputs: str, **attributes: object) -> str:
        """Add a node whose output has the shape of its first input."""
        return self.add(op, list(inputs), self.shapes[inputs[0]], **attributes)

    def keep(self, name: str) -> None:
        (self.maps if len(self.shapes[name]) == 4 else self.rows).append(name)

    def weight(self, shape: Shape, dice: random.Random, fan: int = 1, share: bool = True) -> str:
        same = [
            name
            for name, value in self.weights.items()
            if value.shape == shape and value.dtype == np.float32 and name.startswith("w")
        ]
        if share and same and dice.random() < 0.15:
            return dice.choice(same)
        return self._store("w", (self.rng.standard_normal(shape) / math.sqrt(fan)).astype(np.float32))

    def ints(self, values: Sequence[int]) -> str:
        return self._store("k", np.array(values, np.int64))

    def const(self, values: object) -> str:
        """Store numbers that no other node shares: float32, or the integers or booleans they are."""
        array = np.asarray(values)
        return self._store("k", array.astype(np.float32) if array.dtype.kind == "f" else array)

    def _store(self, letter: str, values: np.ndarray) -> str:
        name = f"{letter}{len(self.weights)}"
        self.weights[name] = values
        self.shapes[name] = values.shape
        return name

    def pick(self, dice: random.Random) -> tuple[str, Shape]:
        name = dice.choice(self.maps[-3:] if dice.random() < 0.7 else self.maps)
        return name, self.shapes[name]

    def pick_rows(self, dice: random.Random) -> tuple[str, Shape]:
        """Return rows, made of a map where there are none yet or, now and then, anew."""
        if not self.rows or dice.random() < 0.2:
            self.rows.append(self.tokens(dice))
        name = dice.choice(self.rows[-3:])
        return name, self.shapes[name]

    def tokens(self, dice: random.Random) -> str:
        """Turn a map into rows: all its positions, or the means of its lines."""
        x, (n, c, h, w) = self.pick(dice)
        if h * w <= 36 and dice.random() < 0.5:
            flat, length = self.add("Reshape", [x, self.ints([0, c, -1])], (n, c, h * w)), h * w
        else:
            mean = self.add("ReduceMean", [x], (n, c, h), axes=[3], keepdims=0)
            flat, length = mean, h
        return self.add("Transpose", [flat], (n, length, c), perm=[0, 2, 1])

    def partner(self, dice: random.Random, fits: Callable[[Shape], bool]) -> str | None:
        found = [name for name in self.maps if fits(self.shapes[name])]
        return dice.choice(found) if found else None

    def batch(self, source: str, dice: random.Random, rest: list[int]) -> str:
        """Return the target of a Reshape whose first axis is the batch, as a literal, a copy or computed."""
        forms = ["zero", "computed"] + (["literal"] if not self.dynamic else [])
        forms += ["free"] if -1 not in rest else []
        form = dice.choice(forms)
        if form == "computed":
            shape = self.add("Shape", [source], (len(self.shapes[source]),))
            size = self.add("Gather", [shape, self.ints([0])], (1,), axis=0)
            return self.add("Concat", [size, self.ints(rest)], (1 + len(rest),), axis=0)
        return self.ints([{"zero": 0, "literal": BATCH, "free": -1}[form], *rest])

    def reshape(self, source: str, shape: Shape, dice: random.Random) -> str:
        rest = list(shape[1:])
        if dice.random() < 0.4:
            rest[dice.randrange(len(rest))] = -1
        return self.add("Reshape", [source, self.batch(source, dice, rest)], shape)

    def positive(self, x: str) -> str:
        """At least a half, so that logarithms, roots and quotients of it are tame."""
        return self.same("Add", self.same("Softplus", x), self.const(np.float32(0.5)))

    def small(self, x: str) -> str:
        """Between -0.9 and 0.9."""
        return self.same("Mul", self.same("Tanh", x), self.const(np.float32(0.9)))

    def project(self, x: str, width: int, dice: random.Random) -> str:
        """Multiply the last axis by a weight."""
        *lead, c = self.shapes[x]
        return self.add("MatMul", [x, self.weight((c, width), dice, c)], (*lead, width))
