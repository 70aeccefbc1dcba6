"""Weights that stay in files: what is read is the same, the files are guarded, and nothing large stands in memory."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune import Options, Target, pipeline
from onnx_subprune.cli.outputs import check_outputs
from onnx_subprune.errors import ModelError, OptionError, OutputError
from onnx_subprune.model import external, fingerprint, load_model, open_session, run, save_model, to_graph, to_model
from onnx_subprune.model.stored import SMALLEST_PLACED, Scratch, StoredValues, has_placed, is_placed

WIDTH, HIDDEN, BLOCKS = 256, 192, 3


def stack(width: int, hidden: int, blocks: int) -> onnx.ModelProto:
    """Return residual blocks of two MatMuls and a bias; only their insides can be pruned."""
    rng = np.random.default_rng(0)
    lines, weights, source = [], [], "x"
    for i in range(blocks):
        lines.append(f"a{i} = MatMul({source}, up{i}) b{i} = Add(a{i}, bias{i}) r{i} = Relu(b{i})")
        lines.append(f"d{i} = MatMul(r{i}, down{i}) x{i} = Add({source}, d{i})")
        for name, shape in ((f"up{i}", (width, hidden)), (f"bias{i}", (hidden,)), (f"down{i}", (hidden, width))):
            values = rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(shape[0]))
            weights.append(numpy_helper.from_array(values, name))
        source = f"x{i}"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N, {width}] x) => (float[N, {width}] {source}) '
        "{" + " ".join(lines) + "}"
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    model.graph.initializer.extend(weights)
    return model


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model with its weights beside it, of which this test counts any as large."""
    monkeypatch.setattr(external, "SMALLEST_LEFT", 0)
    model = stack(WIDTH, HIDDEN, BLOCKS)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=1024)
    return tmp_path / "m.onnx"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a temporary folder of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()


def feeds(samples: int = 32) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((samples, WIDTH)).astype(np.float32)}


# Reading


def test_a_large_model_keeps_its_weights_in_the_file(path: Path) -> None:
    resident, left = load_model(path), load_model(path, resident=False)
    assert [tensor.name for tensor in left.graph.initializer if is_placed(tensor)] == [
        f"{name}{i}" for i in range(BLOCKS) for name in ("up", "down")
    ]
    assert left.ByteSize() < 10_000 < resident.ByteSize()
    assert fingerprint(left) == fingerprint(resident)
    expected = run(open_session(resident, threads=1), feeds())["x2"]
    np.testing.assert_array_equal(run(open_session(left, threads=1, packed=True), feeds())["x2"], expected)
    np.testing.assert_allclose(run(open_session(left, threads=1), feeds())["x2"], expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_is_not_large_is_read_as_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "SMALLEST_LEFT", 1 << 28)
    left = load_model(path, resident=False)
    assert not has_placed(left)
    assert left == load_model(path)


def test_a_graph_reads_the_values_where_they_lie(path: Path) -> None:
    left = load_model(path, resident=False)
    graph = to_graph(left)
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in load_model(path).graph.initializer}
    constants = {tensor.name: tensor for node in graph.nodes for tensor in node.inputs if tensor.name in expected}
    for name, constant in constants.items():
        np.testing.assert_array_equal(constant._values.load(), expected[name])
    assert not constants["up0"]._values.load().flags.writeable
    assert to_model(graph, left) == left


@pytest.mark.parametrize(
    "kind", [TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4]
)
def test_values_of_every_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    monkeypatch.setattr(external, "SMALLEST_LEFT", 0)
    model = stack(WIDTH, HIDDEN, 1)
    count = 2 * SMALLEST_PLACED
    raw = np.random.default_rng(2).integers(0, 127, count, np.uint8).tobytes()
    weight = TensorProto(name="odd", data_type=kind, dims=[2, count // 2])
    size = {TensorProto.INT4: count // 2, TensorProto.FLOAT8E4M3FN: count}.get(kind, 2 * count)
    weight.raw_data = (raw + raw)[:size]
    model.graph.initializer.append(weight)
    save_model(model, tmp_path / "m.onnx", threshold=0)
    left = load_model(tmp_path / "m.onnx", resident=False).graph.initializer[-1]
    assert is_placed(left)
    np.testing.assert_array_equal(StoredValues(left).load(), numpy_helper.to_array(weight))


def test_an_offset_that_is_not_aligned_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "SMALLEST_LEFT", 0)
    model = stack(WIDTH, HIDDEN, 1)
    save_model(model, tmp_path / "m.onnx", threshold=0)
    light = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    (data,) = tmp_path.glob("m.onnx.*.data")
    data.write_bytes(b"odd" + data.read_bytes())
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(int(entry.value) + 3)
    (tmp_path / "m.onnx").write_bytes(light.SerializeToString())
    left = load_model(tmp_path / "m.onnx", resident=False)
    assert fingerprint(left) == fingerprint(model)
    expected = numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(StoredValues(left.graph.initializer[0]).load(), expected)


# Guarding


@pytest.mark.parametrize("change", ["removed", "rewritten", "cut"])
def test_a_file_that_changed_is_refused(path: Path, change: str) -> None:
    left = load_model(path, resident=False)
    data = path.with_name("m.onnx.data")
    if change == "removed":
        data.unlink()
    elif change == "rewritten":
        os.utime(data, ns=(1, 1))
    else:
        os.truncate(data, 1000)
    for use in (fingerprint, open_session, lambda model: save_model(model, path.with_name("o.onnx"))):
        with pytest.raises(
            ModelError, match=r"tensor '\w+' were expected in .*m.onnx.data', which has been changed or removed"
        ):
            use(left)
    assert not path.with_name("o.onnx").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [("missing", "'m.onnx.data' of tensor 'up0' is missing"), ("cut", "cut off or not this model's")],
)
def test_data_that_is_not_whole_is_refused(path: Path, damage: str, message: str) -> None:
    data = path.with_name("m.onnx.data")
    data.unlink() if damage == "missing" else os.truncate(data, 1000)
    with pytest.raises(ModelError, match=message):
        load_model(path, resident=False)


def test_only_this_process_can_place_a_tensor(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(SMALLEST_PLACED))
    forged = onnx.load(path, load_external_data=False)
    entries = {"location": tmp_path / "secret", "offset": 0, "length": SMALLEST_PLACED, "checksum": "a/0/0/0/0"}
    del forged.graph.initializer[0].external_data[:]
    for key, value in entries.items():
        forged.graph.initializer[0].external_data.add(key=key, value=str(value))
    for use in (fingerprint, to_graph):
        with pytest.raises(ModelError, match=r"tensor '\w+' is in an external file that is not loaded"):
            use(forged)
    path.write_bytes(forged.SerializeToString())
    with pytest.raises(ModelError, match="must lie in the model's folder"):
        load_model(path, resident=False)


# Saving


def test_what_stays_in_files_is_saved_whole(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "o.onnx"
    out.parent.mkdir()
    save_model(load_model(path, resident=False), out)
    assert load_model(out) == load_model(path)
    assert b"checksum" not in out.read_bytes()
    onnx.checker.check_model(out, full_check=True)


def test_a_model_may_overwrite_its_own_files(path: Path) -> None:
    before = fingerprint(load_model(path))
    save_model(load_model(path, resident=False), path)
    assert fingerprint(load_model(path)) == before


# What passes make


def test_scratch_holds_weights_until_it_goes(temporary: Path) -> None:
    scratch = Scratch()
    values = np.arange(SMALLEST_PLACED, dtype=np.float32)
    assert scratch.keep(values[:10]) is not None
    assert not list(temporary.iterdir())
    kept = scratch.keep(values)
    np.testing.assert_array_equal(kept.load(), values)
    with scratch.passing():
        passing = scratch.keep(values + 1)
        np.testing.assert_array_equal(passing.load(), values + 1)
    with pytest.raises(ModelError, match="changed or removed"):
        passing.load()
    np.testing.assert_array_equal(kept.load(), values)
    del scratch
    assert not list(temporary.iterdir())


def test_no_room_for_weights_is_one_clear_line(temporary: Path) -> None:
    scratch = Scratch()
    values = np.zeros(SMALLEST_PLACED, np.float32)
    scratch.put(values)
    (folder,) = temporary.iterdir()
    shutil.rmtree(folder)
    with pytest.raises(OutputError, match=r"found none \(.*\); name another with TMPDIR"):
        scratch.put(values)


# The whole way


def pruned(source: Path | onnx.ModelProto) -> pipeline.Result:
    return pipeline.prune(source, feeds(600), Options.of_effort("fast", target=Target("units", 0.5), threads=1))


def test_pruning_gives_what_it_gives_in_memory(path: Path, tmp_path: Path, temporary: Path) -> None:
    result, expected = pruned(path), pruned(load_model(path))
    assert has_placed(result.model)
    assert not has_placed(expected.model)
    assert result.plan == expected.plan
    for mine, other in ((result.dense, expected.dense), (result.pruned, expected.pruned)):
        assert (mine.macs, mine.parameters) == (other.macs, other.parameters)
        assert mine.bytes == pytest.approx(other.bytes, rel=0.01)
    result.save(tmp_path / "a.onnx")
    pruned(path).save(tmp_path / "b.onnx")
    found = load_model(tmp_path / "a.onnx")
    assert [tensor.name for tensor in found.graph.initializer] == [t.name for t in expected.model.graph.initializer]
    for mine, other in zip(found.graph.initializer, expected.model.graph.initializer, strict=True):
        np.testing.assert_allclose(numpy_helper.to_array(mine), numpy_helper.to_array(other), rtol=1e-4, atol=1e-5)
    data = [next(tmp_path.glob(f"{name}.onnx.*.data")) for name in "ab"]
    assert data[0].read_bytes() == data[1].read_bytes()
    assert data[0].name.split(".")[2] == data[1].name.split(".")[2]
    assert any(temporary.iterdir())
    del result
    gc.collect()
    assert not list(temporary.iterdir())


def test_nothing_pruned_loses_nothing(path: Path, tmp_path: Path) -> None:
    result = pipeline.prune(path, feeds(600), Options(Target("units", 1.0), threads=1))
    result.save(tmp_path / "o.onnx")
    assert fingerprint(load_model(tmp_path / "o.onnx")) == fingerprint(load_model(path))


def test_a_folded_weight_of_a_large_model_stays_out_of_memory(path: Path, temporary: Path) -> None:
    model = load_model(path, resident=False)
    graph = to_graph(model)
    constant = next(t for node in graph.nodes for t in node.inputs if t.name == "up0")
    constant.values = constant._values.load() * 2
    scratch = Scratch()
    changed = to_model(graph, model, scratch).graph.initializer[0]
    assert is_placed(changed)
    assert temporary in Path(changed.external_data[0].value).parents
    assert not is_placed(to_model(graph, model).graph.initializer[0])


DRIVER = """
import json, sys, threading, time
from onnx_subprune.cli import main, prune
from onnx_subprune.model import external
external.SMALLEST_LEFT = {threshold}
def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
peak = start = anonymous()
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.001)
threading.Thread(target=watch, daemon=True).start()
sys.argv = ["onnx-subprune", *{words!r}]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(json.dumps(peak - start))
"""


def growth(words: list[str], threshold: int) -> int:
    """Return the bytes of anonymous memory that the command takes at its peak."""
    script = DRIVER.format(threshold=threshold, words=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout.splitlines()[-1]))


def test_the_weights_never_stand_in_anonymous_memory(tmp_path: Path) -> None:
    model = stack(2048, 128, 12)
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert weights > 25e6
    save_model(model, tmp_path / "m.onnx", threshold=0)
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(1).standard_normal((64, 2048)).astype(np.float32))
    words = ["prune", str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx"), "--calib", str(tmp_path / "c.npz")]
    words += ["--target", "units=0.5", "--effort", "fast", "--threads", "1", "--quiet", "--no-timing", "--no-cache"]
    statistics = 12 * 8 * 129**2
    largest = 4 * 2048 * 128
    left = growth(words, 0)
    # The sessions' own memory and that of the imports do not grow with the model.
    assert left < statistics + 12 * largest + 25e6
    # The bound can fail: in memory the same command takes several times the weights.
    assert growth(words, 1 << 40) > 3 * weights


def test_out_never_replaces_the_weights_of_the_model(path: Path, tmp_path: Path) -> None:
    name = "o.onnx.0123456789ab.data"
    light = onnx.load(path, load_external_data=False)
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            entry.value = name if entry.key == "location" else entry.value
    path.write_bytes(light.SerializeToString())
    path.with_name("m.onnx.data").rename(tmp_path / name)
    with pytest.raises(OptionError, match=rf"found them in '{name}', where those of OUT would go; rename OUT"):
        check_outputs({"MODEL": path}, {"OUT": tmp_path / "o.onnx"})
    check_outputs({"MODEL": path}, {"OUT": tmp_path / "p.onnx"})


def test_the_weight_of_a_constant_node_stays_in_the_message(path: Path) -> None:
    model = load_model(path, resident=False)
    value = numpy_helper.from_array(np.ones((HIDDEN, HIDDEN), np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=value))
    model.graph.node[1].input[1] = "up0"
    graph = to_graph(model)
    assert not any(is_placed(a.t) for node in to_model(graph, model, Scratch()).graph.node for a in node.attribute)
