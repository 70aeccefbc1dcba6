"""Pictures with text in them, for a network that looks for text: words of the README drawn on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import imagenette
from PIL import Image, ImageDraw, ImageFont

__all__ = ["pages"]

Array = np.ndarray[Any, Any]

_TEXT = Path(__file__).resolve().parents[2] / "README.md"
# What the detector was trained with, of RGB in 0 to 1.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LINES, _WORDS, _SIZES = (3, 9), (1, 6), (12, 40)


def pages(count: int, side: int, first: int = 0) -> Array:
    """Return pictures [count, 3, side, side], float32; picture i is the same in every call, whatever the count."""
    words = [word for word in _TEXT.read_text(encoding="utf-8").split() if word.isalpha()]
    photographs = imagenette(first + count).inputs[first:]
    drawn = [_drawn(photograph, words, side, first + i) for i, photograph in enumerate(photographs)]
    return np.stack(drawn).astype(np.float32)


def _drawn(photograph: Array, words: list[str], side: int, number: int) -> Array:
    rng = np.random.default_rng((7, number))
    low, high = float(photograph.min()), float(photograph.max())
    pixels = (255 * (photograph - low) / max(high - low, 1e-6)).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(pixels).resize((side, side))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(*_LINES))):
        line = " ".join(rng.choice(words, int(rng.integers(*_WORDS))))
        size = int(rng.integers(*_SIZES))
        place = (int(rng.integers(0, side // 2)), int(rng.integers(0, side - size)))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        draw.text(place, line, fill=colour, font=ImageFont.load_default(size))
    values = np.asarray(image, np.float64) / 255
    return np.asarray(((values - _MEAN) / _DEVIATION).transpose(2, 0, 1))
