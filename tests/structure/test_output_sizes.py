"""The sizes that the rules give to outputs are those of ONNX Runtime, whatever the attributes, and so are the entries.

Nothing is pruned here, and no shape inference helps: a rule has to count by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_subprune.model import to_graph
from onnx_subprune.structure import Records, Structure, fresh, infer, keep_mask
from onnx_subprune.structure.context import Context
from onnx_subprune.structure.rules import rule_of

quick = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
small = st.integers(1, 3)


def _model(node: onnx.NodeProto, shape: Sequence[int], opset: int, /, **constants: np.ndarray) -> onnx.ModelProto:
    """A model of one node that reads x; its outputs are declared without shapes."""
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "g", [x], outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray] | None:
    """Its outputs; None where ONNX Runtime refuses such attributes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results: list[np.ndarray] = session.run(None, {"x": x})
    except Exception:  # whatever the runtime says: such a node never runs
        return None
    return results


def _inferred(model: onnx.ModelProto, shape: Sequence[int]) -> Structure:
    return infer(to_graph(model), {"x": tuple(shape)})


def _runs_alike(op: str, shape: Sequence[int], /, opset: int = 18, outputs: int = 1, **details: object) -> bool:
    """The rule of an operator and ONNX Runtime give outputs of the same shapes; arrays are inputs behind x.

    Returns whether the runtime takes such a node, and gives entries at all.
    """
    constants = {name: value for name, value in details.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in details.items() if name not in constants}
    names = [f"y{i}" for i in range(outputs)]
    inputs = ["x", *("" if "empty" in name else name for name in constants)]
    constants = {name: value for name, value in constants.items() if "empty" not in name}
    node = helper.make_node(op, inputs, names, name="n", **attributes)
    model = _model(node, shape, opset, **constants)
    results = _run(model, np.ones(shape, np.float32))
    if results is None or not all(result.size for result in results):
        return False
    axes = _inferred(model, shape).records.axes
    for name, result in zip(names, results, strict=True):
        assert [dim.size for dim in axes[name]] == list(result.shape), (op, shape, details)
    return True


def _agree(op: str, shape: Sequence[int], /, **details: object) -> None:
    """Hold a random node against ONNX Runtime, if that takes it."""
    assume(_runs_alike(op, shape, **details))  # type: ignore[arg-type]


WINDOW = st.fixed_dictionaries(
    {
        "kernel_shape": st.lists(small, min_size=2, max_size=2),
        "strides": st.lists(small, min_size=2, max_size=2),
        "pads": st.lists(st.integers(0, 2), min_size=4, max_size=4),
        "dilations": st.lists(st.integers(1, 2), min_size=2, max_size=2),
    }
)
AUTOMATIC = st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
IMAGE = st.tuples(st.integers(5, 9), st.integers(5, 9))


def _padded(window: dict[str, object], automatic: str) -> dict[str, object]:
    """Explicit pads are for windows without automatic ones."""
    return (
        window if automatic == "NOTSET" else {**{k: v for k, v in window.items() if k != "pads"}, "auto_pad": automatic}
    )


@quick
@given(WINDOW, AUTOMATIC, IMAGE, st.sampled_from([1, 2]))
def test_convolutions(window: dict[str, object], automatic: str, image: tuple[int, int], groups: int) -> None:
    if automatic.startswith("SAME"):
        window = window | {"dilations": [1, 1]}
    weight = np.ones((6, 4 // groups, *window["kernel_shape"]), np.float32)  # type: ignore[misc]
    _agree("Conv", (2, 4, *image), w=weight, group=groups, **_padded(window, automatic))


@quick
@given(WINDOW, st.sampled_from(["NOTSET", "VALID"]), IMAGE, st.integers(0, 1), st.booleans())
def test_transposed_convolutions(
    window: dict[str, object], automatic: str, image: tuple[int, int], extra: int, whole: bool
) -> None:
    weight = np.ones((4, 3, *window["kernel_shape"]), np.float32)  # type: ignore[misc]
    attributes = _padded(window, automatic)
    if whole and automatic == "NOTSET":
        attributes = {name: value for name, value in attributes.items() if name != "pads"}
        attributes["output_shape"] = [3 * size for size in image]
    elif extra and min(window["strides"]) > extra:  # type: ignore[call-overload]
        attributes["output_padding"] = [extra, extra]
    _agree("ConvTranspose", (2, 4, *image), w=weight, **attributes)


@quick
@given(WINDOW, AUTOMATIC, IMAGE, st.booleans(), st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
def test_pools(window: dict[str, object], automatic: str, image: tuple[int, int], ceil: bool, op: str) -> None:
    # Padding may not be as large as the kernel.
    kernel = [size + 2 for size in window["kernel_shape"]]  # type: ignore[attr-defined]
    attributes = _padded(window | {"kernel_shape": kernel}, automatic)
    if op != "MaxPool" or automatic.startswith("SAME"):
        attributes.pop("dilations")
    if automatic == "NOTSET" and op != "LpPool":
        attributes["ceil_mode"] = int(ceil)
    _agree(op, (2, 4, *image), **attributes)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [(5, 3, 3, (0, 2)), (6, 3, 2, (0, 0)), (7, 2, 3, (1, 1)), (5, 3, 3, (1, 0)), (8, 3, 3, (0, 1)), (6, 2, 3, (0, 1))],
)
def test_a_window_does_not_start_behind_the_last_entry(
    op: str, size: int, kernel: int, stride: int, pads: tuple[int, int]
) -> None:
    """Rounded up, a last window may begin within the image or the padding before it, not in that behind."""
    window = {"kernel_shape": [kernel], "strides": [stride], "pads": pads}
    for ceil in (0, 1):
        assert _runs_alike(op, (2, 4, size), ceil_mode=ceil, **window)  # type: ignore[arg-type]


@quick
@given(st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0]), min_size=4, max_size=4), IMAGE)
def test_resizes_by_scales(scales: list[float], image: tuple[int, int]) -> None:
    scales[0] = scales[1] = 1.0
    _agree("Resize", (2, 4, *image), empty=np.zeros(0, np.float32), scales=np.float32(scales), mode="nearest")


@quick
@given(st.lists(st.integers(1, 12), min_size=2, max_size=2), IMAGE, st.booleans())
def test_resizes_to_sizes(sizes: list[int], image: tuple[int, int], listed: bool) -> None:
    empty = {"empty0": np.zeros(0, np.float32), "empty1": np.zeros(0, np.float32)}
    if listed:
        _agree("Resize", (2, 4, *image), **empty, sizes=np.array(sizes), axes=[2, -1], mode="nearest")
    else:
        _agree("Resize", (2, 4, *image), **empty, sizes=np.array([2, 4, *sizes]), mode="nearest")


@quick
@given(st.data())
def test_slices(data: st.DataObject) -> None:
    axes = data.draw(st.lists(st.sampled_from([0, 1, 2, -1, -2]), min_size=1, max_size=2, unique_by=lambda a: a % 3))
    bound = st.one_of(st.integers(-9, 9), st.sampled_from([2**31 - 1, -(2**31)]))
    starts, ends = ([data.draw(bound) for _ in axes] for _ in range(2))
    steps = [data.draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes]
    lists = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    cuts = zip(axes, starts, ends, steps, strict=True)
    assume(all(len(range((7, 6, 8)[axis])[start:end:step]) for axis, start, end, step in cuts))
    _agree("Slice", (7, 6, 8), **{name: np.array(values) for name, values in lists.items()})


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(-1, -(2**31), -1), (7, -100, -1), (-2, -9, -2), (5, -9, -3), (100, 0, -1), (-100, 100, 3), (-3, 2**63 - 1, 1)],
)
def test_slices_that_run_past_either_end(start: int, end: int, step: int) -> None:
    starts, ends, axes, steps = (np.array([value]) for value in (start, end, -1, step))
    assert _runs_alike("Slice", (2, 8), starts=starts, ends=ends, axes=axes, steps=steps)


@quick
@given(st.lists(st.integers(-1, 3), min_size=4, max_size=4), st.sampled_from(["constant", "reflect", "edge"]))
def test_pads(pads: list[int], mode: str) -> None:
    before, after = pads[:2], pads[2:]
    _agree("Pad", (4, 5, 6), pads=np.array([0, *before, 0, *after]), mode=mode)


@quick
@given(st.integers(1, 4), st.integers(4, 11), st.booleans())
def test_splits(count: int, size: int, given: bool) -> None:
    """Without sizes the last piece is the smaller one."""
    assume(size - (count - 1) * -(-size // count) > 0)
    if given:
        _agree("Split", (2, size), outputs=count, sizes=np.array([1] * (count - 1) + [size - count + 1]), axis=-1)
    else:
        _agree("Split", (2, size), outputs=count, axis=1, num_outputs=count)


@quick
@given(st.lists(small, min_size=3, max_size=3), st.lists(small, min_size=3, max_size=4))
def test_repetitions(repeats: list[int], shape: list[int]) -> None:
    _agree("Tile", (2, 3, 4), repeats=np.array(repeats))
    wide = [2, 1, 3] if len(shape) == 3 else [shape[0], 2, 1, 3]
    _agree("Expand", (2, 4, 1), shape=np.array(wide))


@quick
@given(
    st.sampled_from(["ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"]),
    st.lists(st.sampled_from([0, 1, 2, -1, -2]), max_size=3, unique_by=lambda a: a % 3),
    st.booleans(),
    st.booleans(),
)
def test_reductions(op: str, axes: list[int], keep: bool, noop: bool) -> None:
    attributes = {"keepdims": int(keep), "noop_with_empty_axes": int(noop)}
    if axes:
        _agree(op, (2, 3, 4), axes=np.array(axes), **attributes)
    else:
        _agree(op, (2, 3, 4), **attributes)


@quick
@given(st.sampled_from([0, 1, 2, -1, -3]), st.booleans(), st.integers(1, 2))
def test_positions(axis: int, keep: bool, count: int) -> None:
    _agree("ArgMax", (2, 3, 4), axis=axis, keepdims=int(keep))
    _agree("TopK", (2, 3, 4), outputs=2, k=np.array([count]), axis=axis)
    _agree("CumSum", (2, 3, 4), axis=np.array(axis))
    _agree("Hardmax", (2, 3, 4), axis=axis)


@quick
@given(st.integers(-3, 3), st.sampled_from([(0,), (0, 2), (-1,), (0, -1), (1, 2)]))
def test_axes_that_come_and_go(axis: int, places: tuple[int, ...]) -> None:
    _agree("Flatten", (2, 3, 4), axis=axis)
    _agree("Unsqueeze", (2, 3, 4), axes=np.array(places))
    _agree("Squeeze", (1, 3, 1, 4), axes=np.array([0, -2]))
    _agree("Squeeze", (1, 3, 1, 4))


@quick
@given(st.sampled_from([0, 1, -1, -2]), st.sampled_from([(), (2,), (2, 3), (1, 1)]))
def test_lookups(axis: int, shape: tuple[int, ...]) -> None:
    _agree("Gather", (4, 5, 6), indices=np.zeros(shape, np.int64) + 1, axis=axis)
    _agree("GatherND", (4, 5, 6), indices=np.ones((*shape, 2), np.int64))
    _agree("GatherElements", (4, 5, 6), indices=np.ones((4, 5, 6), np.int64), axis=axis)


@quick
@given(st.sampled_from([1, 2, 3]), st.sampled_from(["DCR", "CRD"]))
def test_blocks_of_space(block: int, mode: str) -> None:
    _agree("DepthToSpace", (2, 2 * block**2, 4, 5), blocksize=block, mode=mode)
    _agree("SpaceToDepth", (2, 3, 2 * block, 3 * block), blocksize=block)


# Entries: what stays of an output is what stays of the input, wherever an operator moves it.


def _moved(op: str, shape: Sequence[int], data: st.DataObject, /, outputs: int = 1, **details: object) -> None:
    """Prune the input's free axes at random: the entries that stay of the outputs are just those that stay of it."""
    constants = {name: value for name, value in details.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in details.items() if name not in constants}
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *constants], names, name="n", **attributes)
    model = _model(node, shape, 18, **constants)
    entries = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    results = _run(model, entries)
    assert results is not None
    ctx = Context(Records(18))
    ctx.axes["x"] = tuple(fresh(size) for size in shape)
    graph = to_graph(model)
    rule = rule_of(graph.nodes[0])
    assert rule is not None
    rule(graph.nodes[0], ctx)
    atoms = {atom for dim in ctx.axes["x"] for atom in dim.atoms() if not atom.reasons}
    keeps = {}
    for atom in sorted(atoms, key=lambda atom: (atom.size, id(atom))):
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=atom.size, max_size=atom.size)))
        keeps[atom] = mask if mask.any() else ~mask

    def kept(name: str, values: np.ndarray) -> list[float]:
        masks = [keep_mask(dim, keeps) for dim in ctx.axes[name]]
        return list(values[np.ix_(*masks)].ravel().tolist())

    stays = [entry for name, result in zip(names, results, strict=True) for entry in kept(name, result)]
    assert sorted(stays) == sorted(kept("x", entries))


@quick
@given(st.data())
def test_entries_of_permutations_and_regroupings(data: st.DataObject) -> None:
    perm = data.draw(st.permutations(range(4)))
    _moved("Transpose", (2, 3, 4, 5), data, perm=perm)
    _moved("Flatten", (2, 3, 4), data, axis=data.draw(st.integers(-3, 3)))
    target = data.draw(st.sampled_from([(4, 3, 6), (12, 6), (2, 6, 6), (4, 18), (2, 2, 3, 2, 3), (72,), (4, -1, 2)]))
    _moved("Reshape", (4, 3, 6), data, shape=np.array(target))
    _moved("Reshape", (12, 6), data, shape=np.array(target))


@quick
@given(st.data())
def test_entries_of_blocks_and_pieces(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["DCR", "CRD"]))
    _moved("DepthToSpace", (1, 12, 2, 3), data, blocksize=2, mode=mode)
    _moved("SpaceToDepth", (2, 3, 4, 2), data, blocksize=2)
    first = data.draw(st.integers(1, 6))
    _moved("Split", (2, 8), data, outputs=3, sizes=np.array([first, 1, 7 - first]), axis=-1)
    order = data.draw(st.permutations([0, 1, 2]))
    runs = np.concatenate([np.arange(8)[[slice(0, 3), slice(3, 4), slice(4, 8)][i]] for i in order])
    _moved("Gather", (8, 2), data, indices=runs)
