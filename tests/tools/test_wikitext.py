"""Windows to calibrate a language model on: no `<unk>` is left, and nothing else is changed but the order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from accuracy.wikitext import calibration_windows

VOCABULARY = {"Ġ<": 0, "unk": 1, ">": 2, "Ġthe": 3, "ĠWel": 4, "ing": 5, "er": 6, "Ġ,": 7, "9": 8}


def test_every_unknown_word_becomes_a_word_of_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(json.dumps({"model": {"vocab": VOCABULARY}}))
    ids = np.array([7, 0, 1, 2, 8, 0, 1, 8] * 200)
    windows = calibration_windows(ids, tokenizer, 5)
    assert windows.shape[1] == 5
    assert windows.dtype == ids.dtype
    assert np.array_equal(windows, calibration_windows(ids, tokenizer, 5))
    # What only looks like the beginning of one stays.
    text = "".join(map(str, np.sort(windows.ravel())))
    assert text.count("2") == 0
    assert 150 < text.count("0") <= 200
    assert {"3", "4", "5", "6"} <= set(text)
