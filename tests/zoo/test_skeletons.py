"""The format of the zoo: weights out and in again, and what the files may hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

ZOO = Path(__file__).resolve().parent
SKELETONS = ZOO / "skeletons"


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


@pytest.fixture
def model() -> onnx.ModelProto:
    """Return a network with weights, two of them tied, one turned."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((16, 16)).astype(np.float32)
    values = {
        "weight": weight,
        "turned": weight.T,
        "other": generator.standard_normal((16, 16)).astype(np.float32),
        "scale": generator.standard_normal(16).astype(np.float32),
        "shift": generator.standard_normal(40).astype(np.float32),
        "mean": generator.standard_normal(40).astype(np.float32),
        "variance": np.full(40, 3, np.float32) + np.arange(40, dtype=np.float32),
        "gamma": generator.standard_normal(40).astype(np.float32),
        "mask": np.where(np.arange(64) % 2, 0, -1e4).astype(np.float32),
        "sizes": np.arange(64),
    }
    nodes = onnx.parser.parse_graph(
        """
        net (float[n,16] x) => (float[n,16] y) {
          a = MatMul (x, weight)
          b = MatMul (a, turned)
          c = MatMul (b, other)
          y = Mul (c, scale)
          z = BatchNormalization (u, gamma, shift, mean, variance)
          m = Gather (mask, sizes)
        }
        """
    )
    nodes.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in values.items())
    nodes.node[0].doc_string = "/home/someone/model.py:3"
    nodes.node[1].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/someone/model.py")
    return onnx.helper.make_model(nodes, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 17)])


def test_a_skeleton_keeps_what_is_small_whole_or_a_mask(model: onnx.ModelProto, zoo_library: ModuleType) -> None:
    filled = zoo_library.refill(zoo_library.strip(model))
    for name in ("scale", "mask", "sizes"):
        np.testing.assert_array_equal(initializer(filled, name), initializer(model, name))
    assert not np.array_equal(initializer(filled, "weight"), initializer(model, "weight"))


def test_weights_come_back_with_shape_type_and_a_spread_by_fan_in(
    model: onnx.ModelProto, zoo_library: ModuleType
) -> None:
    filled = zoo_library.refill(zoo_library.strip(model))
    for before, after in zip(model.graph.initializer, filled.graph.initializer, strict=True):
        assert (after.name, after.dims, after.data_type) == (before.name, before.dims, before.data_type)
        assert not after.doc_string
    assert initializer(filled, "other").std() == pytest.approx(0.25, rel=0.2)
    assert initializer(filled, "variance").min() > 0.4


def test_tied_weights_stay_tied(model: onnx.ModelProto, zoo_library: ModuleType) -> None:
    filled = zoo_library.refill(zoo_library.strip(model), seed=3)
    np.testing.assert_array_equal(initializer(filled, "weight"), initializer(filled, "turned").T)
    assert not np.array_equal(initializer(filled, "weight"), initializer(filled, "other"))


def test_a_seed_gives_the_same_bytes(model: onnx.ModelProto, zoo_library: ModuleType, tmp_path: Path) -> None:
    skeleton = zoo_library.strip(model)
    zoo_library.write_skeleton(skeleton, tmp_path / "net.onnx.xz")
    again = zoo_library.read_skeleton(tmp_path / "net.onnx.xz")
    one, same, other = (zoo_library.refill(s, seed) for s, seed in ((skeleton, 1), (again, 1), (again, 2)))
    assert one.SerializeToString(deterministic=True) == same.SerializeToString(deterministic=True)
    assert not np.array_equal(initializer(one, "other"), initializer(other, "other"))


def test_nothing_of_the_machine_that_exported_remains(model: onnx.ModelProto, zoo_library: ModuleType) -> None:
    assert b"someone" not in zoo_library.strip(model).SerializeToString()


def test_index_and_files_agree(entries: dict[str, Any]) -> None:
    assert sorted(entries) == sorted(path.name.removesuffix(".onnx.xz") for path in SKELETONS.iterdir())
    assert len({entry.architecture for entry in entries.values()}) >= 60
    assert len({entry.source["exporter"] for entry in entries.values()}) >= 4


def test_the_zoo_is_small() -> None:
    sizes = [path.stat().st_size for path in SKELETONS.iterdir()]
    assert max(sizes) < 60_000
    assert sum(sizes) < 3_000_000


def test_no_skeleton_holds_a_path_of_the_machine_it_was_made_on(
    entries: dict[str, Any], zoo_library: ModuleType
) -> None:
    for name in entries:
        data = zoo_library.read_skeleton(SKELETONS / f"{name}.onnx.xz").SerializeToString()
        assert b"site-packages" not in data, name
        assert b"/home/" not in data, name


def test_the_page_is_up_to_date(entries: dict[str, Any], page: dict[str, Any], zoo_table: ModuleType) -> None:
    assert {name: row.cheap for name, row in page.items()} == {
        name: zoo_table.cheap(entry) for name, entry in entries.items()
    }
