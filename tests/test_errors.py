"""Errors are of one tree, and each says with which status the command line ends."""

from __future__ import annotations

import inspect

import pytest

import onnx_subprune
from onnx_subprune import errors

ERRORS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_documented_public_and_in_the_picture_of_the_tree(error: type[errors.SubpruneError]) -> None:
    assert issubclass(error, errors.SubpruneError)
    assert error.__name__ in str(errors.__doc__)
    assert getattr(onnx_subprune, error.__name__) is error
    assert inspect.getdoc(error) != inspect.getdoc(Exception)


def test_all_errors_of_the_module_are_listed() -> None:
    defined = [item for item in vars(errors).values() if isinstance(item, type) and item.__module__ == errors.__name__]
    assert sorted(item.__name__ for item in defined) == sorted(errors.__all__)


def test_a_target_out_of_reach_has_a_status_of_its_own_and_names_the_nearest() -> None:
    error = errors.TargetError("macs=0.1 cannot be met", nearest=0.25)
    assert (error.exit_code, error.nearest, str(error)) == (3, 0.25, "macs=0.1 cannot be met")
    assert {kind.exit_code for kind in ERRORS if kind is not errors.TargetError} == {1}
    assert not issubclass(errors.TargetError, errors.UserError)
    assert not issubclass(errors.InternalError, errors.UserError)
