"""Lets torchvision be imported beside a build of torch that its compiled operators do not belong to.

Its shape functions are registered on import, for operators that must exist by then. No network of the zoo uses them.
"""

from __future__ import annotations

import torch

__all__ = ["LIBRARY"]

LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
