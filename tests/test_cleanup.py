"""What is under way is undone at the end of its block, or all at once; a forked child leaves it alone."""

from __future__ import annotations

import os

import pytest

from onnx_subprune.cleanup import cleanup, register, run_all


def test_a_block_undoes_once_however_it_ends() -> None:
    undone: list[str] = []
    with cleanup(lambda: undone.append("well")):
        assert not undone
    with pytest.raises(KeyboardInterrupt), cleanup(lambda: undone.append("badly")):
        raise KeyboardInterrupt
    run_all()
    assert undone == ["well", "badly"]


def test_all_is_undone_the_latest_first_whatever_fails() -> None:
    undone: list[int] = []

    def fail() -> None:
        raise OSError("gone already")

    done = [register(lambda: undone.append(1)), register(fail), register(lambda: undone.append(3))]
    run_all()
    assert undone == [3, 1]
    for forget in (done[0], done[2]):
        forget()
    with pytest.raises(OSError, match="gone"):
        done[1]()
    undone.clear()
    run_all()
    assert not undone, "what was done is forgotten, also where it failed"


def test_a_forked_child_undoes_nothing_of_its_parent() -> None:
    undone: list[str] = []
    with cleanup(lambda: undone.append("mine")):
        if (child := os.fork()) == 0:
            run_all()
            os._exit(len(undone))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
