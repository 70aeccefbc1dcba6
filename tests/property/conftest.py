"""Random networks of the operators that have rules, as a hypothesis strategy."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from generator.strategy import networks
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def random_networks() -> Callable[..., st.SearchStrategy[onnx.ModelProto]]:
    """`random_networks(most=16)`: a strategy for models of up to so many steps on [2 or N, 4, 6 or H, 6 or W].

    Where H and W are symbols the networks still hold literals that are right for 6 only.
    """
    return networks
