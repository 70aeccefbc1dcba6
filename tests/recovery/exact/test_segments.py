"""A network run piece by piece computes what it computes in one go, every node once, and forgets what it can."""

from __future__ import annotations

import tempfile
from collections import Counter

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import OutputError
from onnx_subprune.model import open_session, run
from onnx_subprune.recovery.exact.activation_store import Store
from onnx_subprune.recovery.exact.segments import Segments

BRANCHES = """g (float[N,3,6,6] x, float[N,4] k) => (float[a,b,c,d] y, float[e,f] v) {
    [c1] a = Conv <pads=[1,1,1,1]> (x, w1, b1)
    [r1] b = Relu(a)
    [c2] c = Conv <pads=[1,1,1,1]> (b, w2)
    [s] d = Add(c, a)
    [p] p = GlobalAveragePool(d)
    [f] q = Flatten(p)
    [g] v0 = Gemm(q, w3)
    [t] v = Add(v0, k)
    [m] m = Mul(d, p)
    [c3] y = Conv(m, w4)
}"""
WEIGHTS = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (4, 4), "w4": (2, 4, 1, 1)}
CHOICE = """g (float[N,4] x, float[M] s) => (float[a,b] y) {
    [m1] h = MatMul(x, w1)
    [z] z = ReduceSum <keepdims=0> (s)
    [g] c = Greater(z, zero)
    [if] i = If (c) <
        then_branch = t () => (float[a,b] ty) { [m2] ty = MatMul(h, w2) },
        else_branch = e () => (float[a,b] ey) { [e] ey = Neg(x) }
    >
    [m3] y = MatMul(i, w3)
}"""


def _whole(model, names, batches):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in {value.name for value in model.graph.output}
    )
    session = open_session(copy, threads=1)
    return [run(session, feeds, list(names)) for feeds in batches]


def _fed(model, batches, **options):
    store = Store(**options)
    found = Segments(model, store, threads=1)
    for feeds in batches:
        found.feed(feeds)
    return found, store


def _equal(one, other):
    for name, value in one.items():
        assert np.abs(value.astype(np.float64) - other[name]).max(initial=0) <= 1e-6, name


@pytest.mark.parametrize(
    "calls",
    [
        [["y", "v"]],
        [["a"], ["c", "a"], ["q"], ["m"], ["y"], ["v"]],
        [["v"], ["d"], ["y"]],
        [["c"], ["p", "d"], ["v0", "y"]],
        [["x"], ["b"], ["x", "v"], ["y"]],
        [["a", "a"], ["y"]],
    ],
)
@pytest.mark.parametrize("max_bytes", [0, 700, 1 << 30])
def test_any_order_gives_what_the_whole_network_gives(net, batches, calls, max_bytes, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = net(BRANCHES, **WEIGHTS)
    fed = batches(model)
    ran = Counter()
    opened = Segments._session

    def counting(self, todo, made, fetched):
        ran.update(self._nodes[index].name for index in todo)
        return opened(self, todo, made, fetched)

    monkeypatch.setattr(Segments, "_session", counting)
    found, store = _fed(model, fed, max_bytes=max_bytes)
    # What is asked for after its last reader has run is to be announced.
    found.expect(name for call in calls for name in dict.fromkeys(call))
    names = {name for call in calls for name in call}
    expected = _whole(model, sorted(names - {"x"}), fed)
    for call in calls:
        seen = list(found.advance(call))
        assert len(seen) == len(fed)
        for values, whole, feeds in zip(seen, expected, fed, strict=True):
            assert set(values) == set(call)
            _equal(values, whole | feeds)
    assert set(ran.values()) == {1}
    assert (store.spilled > 0) == (max_bytes < 1 << 20)
    # What is left was made for nodes that have not run.
    left = {name for node in found.pending(["y", "v"]) for name in node.input}
    assert set(store.names()) <= left
    store.close()
    assert not list(tmp_path.iterdir())


def test_what_no_later_node_reads_is_dropped(net, batches):
    model = net(BRANCHES, **WEIGHTS)
    found, store = _fed(model, batches(model))
    list(found.advance(["c"]))
    assert set(store.names()) == {"a", "c", "k"}
    list(found.advance(["d"]))
    assert set(store.names()) == {"d", "k"}
    list(found.advance(["v"]))
    assert set(store.names()) == {"d", "p"}
    list(found.advance(["y"]))
    assert not store.names()


def test_weights_may_change_before_their_node_runs(net, batches):
    model = net(BRANCHES, **WEIGHTS)
    fed = batches(model)
    found, _ = _fed(model, fed)
    list(found.advance(["b"]))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    weight.CopyFrom(onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(weight), "w2"))
    expected = _whole(model, ["y"], fed)
    for values, whole in zip(found.advance(["y"]), expected, strict=True):
        _equal(values, whole)


def test_bodies_read_tensors_from_outside(net, batches):
    model = net(CHOICE, w1=(4, 4), w2=(4, 4), w3=(4, 4), zero=np.float32(0))
    fed = batches(model)
    for feeds, sign in zip(fed, (1, -1, 1), strict=True):
        feeds["s"] = np.float32([sign] * 3)
    found, store = _fed(model, fed)
    list(found.advance(["h"]))
    assert set(store.names()) == {"h", "x", "s"}
    list(found.advance(["c"]))
    assert set(store.names()) == {"h", "x", "c"}
    for values, whole in zip(found.advance(["y"]), _whole(model, ["y"], fed), strict=True):
        _equal(values, whole)


def test_sequences_are_made_again(net, batches):
    model = net(
        """g (float[N,4] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [s] s = SplitToSequence <axis=1> (h, two)
            [t0] a = SequenceAt(s, zero)
            [m2] b = MatMul(a, w2)
            [t1] c = SequenceAt(s, one)
            [a] y = Add(b, c)
        }""",
        w1=(4, 4), w2=(2, 2), two=np.array(2), zero=np.array(0), one=np.array(1),
    )  # fmt: skip
    fed = batches(model)
    found, store = _fed(model, fed)
    list(found.advance(["h"]))
    list(found.advance(["a"]))
    assert set(store.names()) == {"h", "a"}
    for values, whole in zip(found.advance(["y"]), _whole(model, ["y"], fed), strict=True):
        _equal(values, whole)
    assert not store.names()


def test_what_follows_from_constants_alone_is_not_kept(net, batches):
    model = net(
        """g (float[N,4] x) => (float[a,b] y) {
            [t] t = Transpose(w1)
            [m1] h = MatMul(x, t)
            [m2] y = MatMul(h, t)
        }""",
        w1=(4, 4),
    )
    fed = batches(model)
    found, store = _fed(model, fed)
    list(found.advance(["h"]))
    assert set(store.names()) == {"h"}
    for values, whole in zip(found.advance(["y"]), _whole(model, ["y"], fed), strict=True):
        _equal(values, whole)


def test_shapes_that_are_computed_know_how_many_axes_they_have(net, draw):
    """A Reshape to a shape of unknown length would give a tensor of unknown rank, of which no shape can be taken."""
    model = net(
        """g (float[N,4] x, int64[2] s) => (float[a,b,c,d] y) {
            [i] t = Mul(s, one)
            [j] j = Concat <axis=0> (ones, t)
            [m] h = MatMul(x, w)
            [r] r = Reshape(h, j)
            [k] k = Shape <start=0, end=2> (r)
            [z] z = Concat <axis=0> (k, t)
            [q] y = Resize(r, , , z)
        }""",
        w=(4, 4), one=np.array([1, 1]), ones=np.array([1, 1]),
    )  # fmt: skip
    feeds = {"x": draw(model, 3)["x"], "s": np.array([3, 4])}
    found, _ = _fed(model, [feeds])
    list(found.advance(["h", "t"]))
    (values,) = found.advance(["y"])
    assert values["y"].shape == (1, 1, 3, 4)


def test_announced_tensors_are_kept_until_they_are_asked_for(net, batches):
    model = net(BRANCHES, **WEIGHTS)
    fed = batches(model)
    found, store = _fed(model, fed)
    found.expect(["c", "q"])
    list(found.advance(["y", "v"]))
    assert set(store.names()) == {"c", "q"}
    for values, whole in zip(found.advance(["c"]), _whole(model, ["c"], fed), strict=True):
        _equal(values, whole)
    assert set(store.names()) == {"q"}
    assert found.has("q")
    assert not found.has("c")


def test_spilled_values_come_back_as_they_were(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = Store(max_bytes=0)
    values = [np.float32(3).reshape(()), np.zeros((0, 4), np.float32), np.array(["a", "bc"], object),
              np.arange(6).reshape(2, 3).T, np.array([True, False])]  # fmt: skip
    for number, value in enumerate(values):
        store.put(f"t{number}", 0, value)
    for number, value in enumerate(values):
        found = store.get(f"t{number}", 0)
        assert found.dtype == value.dtype
        assert found.shape == value.shape
        assert (found == value).all()
    assert list(tmp_path.rglob("*.npy"))
    for number in range(len(values)):
        store.drop(f"t{number}")
    assert not list(tmp_path.rglob("*.npy"))
    store.close()
    assert not list(tmp_path.iterdir())


def test_no_room_is_said_so(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    store = Store(max_bytes=0)
    with pytest.raises(OutputError, match="No space left on device"):
        store.put("t", 0, np.zeros(4))
    store.close()


def test_memory_is_counted_as_tensors_come_and_go():
    store = Store(max_bytes=64)
    store.put("a", 0, np.zeros(8))
    store.put("b", 0, np.zeros(1))
    assert store.spilled == 8
    store.drop("a")
    store.put("c", 0, np.zeros(8))
    assert store.spilled == 8
    assert store.kind("c") == (np.dtype(np.float64), (8,))
    store.put("c", 1, np.zeros(9))
    assert store.kind("c") == (np.dtype(np.float64), (None,))
    store.close()


SELECTED = """g (float[N,3] x) => (float[N,2,2] y) {
    [m1] a = MatMul(x, w1)
    [top] t, i = TopK(a, two)
    [wide] u = Unsqueeze(i, last)
    [float] f = Cast<to = 1>(u)
    [m2] y = MatMul(f, w2)
    [m3] v = MatMul(t, w3)
}"""


def _selected(net):
    weights = {"w1": (3, 5), "w2": (1, 2), "w3": (2, 2), "two": np.array([2]), "last": np.array([2])}
    return net(SELECTED, **weights)


def test_a_tensor_that_is_given_takes_the_place_of_the_own_one(net, batches):
    model = _selected(net)
    fed, store = batches(model), Store()
    segments = Segments(model, store, threads=1, given=["i", "no such tensor"])
    for feeds in fed:
        segments.feed(feeds)
    assert segments.has("i")
    assert segments.lacking(["a"]) == []
    assert segments.lacking(["y", "t"]) == segments.lacking(["i"]) == ["i"]
    own = _whole(model, ["i", "t"], fed)
    others = [np.flip(values["i"], axis=1) for values in own]
    cut = []
    for batch, other in enumerate(others):
        segments.give({"i": other}, batch, lambda name, value: cut.append(name) or value)
    assert cut == ["i"] * len(fed)
    assert segments.lacking(["y"]) == []
    w2 = onnx.numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == "w2"))
    for values, other in zip(segments.advance(["y"]), others, strict=True):
        np.testing.assert_allclose(values["y"], other[:, :, None] @ w2, rtol=1e-6)
    # The other output of the node that decides is the network's own.
    for values, mine in zip(segments.advance(["t"]), own, strict=True):
        np.testing.assert_allclose(values["t"], mine["t"], rtol=1e-6)


def test_what_no_array_holds_the_network_makes_itself(net, batches):
    sequence = "a = MatMul(x, w1) s = SequenceConstruct(a) y = SequenceAt(s, i)"
    model = net(f"g (float[N,3] x) => (float[N,5] y) {{ {sequence} }}", w1=(3, 5), i=np.array(0))
    fed = batches(model)
    segments = Segments(model, Store(), threads=1, given=["s"])
    for feeds in fed:
        segments.feed(feeds)
    assert segments.lacking(["y"]) == ["s"]
    for batch in range(len(fed)):
        segments.give({"s": [np.ones(3)]}, batch, lambda _, value: value)
    assert segments.lacking(["y"]) == []
    for values, whole in zip(segments.advance(["y"]), _whole(model, ["y"], fed), strict=True):
        _equal(values, whole)
