"""Value infos follow the graph where it differs, and stay as they were where it does not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper

from onnx_subprune.model.values import Declared, decoded_shape, new_info, patched_info


def info(shape: list[int | str | None] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("t", kind, shape, doc_string="about t")


def declared(*infos: onnx.ValueInfoProto) -> list[Declared]:
    return [(one.type.tensor_type.elem_type, decoded_shape(one)) for one in infos]


@pytest.mark.parametrize("shape", [None, [], [1, "N", None]])
def test_a_shape_is_read_as_it_is_written(shape: list[int | str | None] | None) -> None:
    assert decoded_shape(info(shape)) == shape


def test_a_new_info_says_what_the_tensor_says() -> None:
    target = onnx.ValueInfoProto()
    new_info(gs.Variable("t", np.float16, [2, "N", None, -1]), target)
    assert target.type.tensor_type.elem_type == TensorProto.FLOAT16
    assert decoded_shape(target) == [2, "N", None, None]


@pytest.mark.parametrize(("symbols", "size"), [((), None), (("unk__3",), "unk__3")])
def test_made_up_symbols_are_written_only_if_the_model_has_them(symbols: tuple[str, ...], size: str | None) -> None:
    target = onnx.ValueInfoProto()
    new_info(gs.Variable("t", np.float32, ["unk__3"]), target, symbols)
    assert decoded_shape(target) == [size]


def patched(
    tensor: gs.Tensor | None, original: onnx.ValueInfoProto, *others: onnx.ValueInfoProto
) -> onnx.ValueInfoProto:
    target = onnx.ValueInfoProto()
    patched_info(tensor, original, declared(original, *others), target)
    return target


def test_what_agrees_is_left_alone() -> None:
    assert patched(None, info([2])) == info([2])
    assert patched(gs.Variable("t", np.float32, [2, "N"]), info([2, "N"])) == info([2, "N"])
    # The tensor agrees with another message of the same name, so both stay as they are.
    assert patched(gs.Variable("t", np.float32, [2, "N"]), info([2, None]), info([2, "N"])) == info([2, None])


def test_what_differs_is_written_and_the_rest_is_kept() -> None:
    target = patched(gs.Variable("t", np.float16, [3, "N"]), info([2, "N"]))
    assert decoded_shape(target) == [3, "N"]
    assert (target.type.tensor_type.elem_type, target.doc_string) == (TensorProto.FLOAT16, "about t")
    assert decoded_shape(patched(gs.Variable("t", np.float32, None), info([2]))) is None
    assert decoded_shape(patched(gs.Variable("t", np.float32, [1, 2]), info([2]))) == [1, 2]


def test_types_that_are_no_tensors_are_left_alone() -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    original = helper.make_value_info("t", kind)
    assert patched(gs.Variable("t", np.float32, [1]), original) == original
