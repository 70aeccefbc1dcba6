"""The demo model and its data, shipped with the package."""

from __future__ import annotations

from onnx_subprune.demo.bundle import Demo, load_demo

__all__ = ["Demo", "load_demo"]
