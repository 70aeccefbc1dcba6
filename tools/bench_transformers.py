"""Transformers at three quarters of their units: what is lost with and without recovery, by kind of unit.

    python tools/bench_transformers.py --cache FOLDER minilm vit smollm2 --out docs/results.md

FOLDER holds what is made elsewhere: `minilm.onnx`, `sts-dev.npz`, `sts-test.npz` (tools/export_minilm.py) and
`smollm2.onnx`, `wiki2.test.ids.npy`, `wiki2.valid.ids.npy` (the data folder's tools/smollm2.py). Statistics and figures
are kept there too: a measurement that was made once is not made again. With --out the section is put in the place of
the one that is there, or at the end. SmolLM2 takes about an hour on two CPU cores, the others a quarter of one.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from accuracy.networks import kind
from accuracy.sentences import by_length, correlation, sentences
from datasets import cifar10_resized, data_folder
from onnx import numpy_helper
from sections import put

from onnx_subprune.calibration import Dataset, Statistics, open_data, open_tokens
from onnx_subprune.evaluate import perplexity, top1
from onnx_subprune.model import input_specs, load_model, measure_cost
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Analysis, Result, analyse, apply, calibrate, prune
from onnx_subprune.structure import Group

logger = logging.getLogger("bench_transformers")

KEPT = 0.75
HEADING = "## Transformers by kind of unit\n"
VIT = "vit/vits14_cifar10_98px.stored-fp16.onnx"
WINDOW, WINDOWS, CUT = 1024, 4, 256
SELECTS = ("zca", "saw")
RECOVERIES = ("none", "channel")
TEXT = """\
Three quarters of the units of one kind stay, the same share in every layer; the other kinds stay whole. *Heads* are
whole heads; of a model with grouped queries, a key, a value and all their queries. *Value channels* go from all heads
of a layer alike, and so do *query-key pairs*, which no weight reads: there is nothing to recover. The orderings are
`zca` (the default) and `saw`; `recovery none` only cuts. One calibration serves all rows of a network, nothing is
trained, and nothing was tuned on the test data.
"""


@dataclass(frozen=True)
class Network:
    """A network, the data that calibrates it and how it is measured."""

    title: str
    measure: str
    model: onnx.ModelProto
    calibration: Dataset
    evaluate: Callable[[onnx.ModelProto], str]


def minilm(cache: Path, samples: int | None) -> Network:
    """all-MiniLM-L6-v2 on the STS benchmark."""
    model = load_model(cache / "minilm.onnx")
    dev, test = (np.load(cache / f"sts-{split}.npz") for split in ("dev", "test"))
    texts = sentences(dev)[:samples]
    tokens = sum(map(len, texts))

    def evaluate(pruned: onnx.ModelProto) -> str:
        return f"{100 * correlation(pruned, test):.2f}"

    return Network(
        "all-MiniLM-L6-v2 (22.7 M parameters)",
        f"Spearman correlation x 100 on the {len(test['scores']):,} pairs of the STS test set (larger is better). "
        f"Calibration: {len(texts):,} sentences of the development set, {tokens:,} tokens.",
        model,
        open_data([{"input_ids": ids} for _, ids in by_length(texts)], input_specs(model)),
        evaluate,
    )


def vit(cache: Path, samples: int | None) -> Network:  # noqa: ARG001 - every network is opened alike
    """A ViT-S/14 with a linear head, on CIFAR-10."""
    model = load_model(data_folder() / VIT)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    (spec,) = input_specs(model)
    side = int(spec.shape[-1] or 0)
    calibration, test = cifar10_resized("train", side, samples or 512), cifar10_resized("test", side, 2000)

    def evaluate(pruned: onnx.ModelProto) -> str:
        found = []
        for count in (500, 2000):
            images = {spec.name: test.inputs[:count], "labels": test.labels[:count]}
            found.append(100 * top1(pruned, open_data(images, input_specs(pruned))).accuracy)
        return " / ".join(f"{each:.1f}" for each in found)

    return Network(
        "ViT-S/14 (21.6 M parameters)",
        "Top-1 in percent on the first 500 / 2,000 images of the CIFAR-10 test set (larger is better). "
        f"Calibration: {len(calibration.inputs):,} training images, {len(calibration.inputs) * 50:,} tokens.",
        model,
        open_data({spec.name: calibration.inputs}, input_specs(model)),
        evaluate,
    )


def smollm2(cache: Path, samples: int | None) -> Network:
    """SmolLM2-135M on WikiText-2."""
    model = load_model(cache / "smollm2.onnx")
    valid, test = (np.load(cache / f"wiki2.{split}.ids.npy") for split in ("valid", "test"))
    count = samples or 32
    calibration = open_tokens(valid[: count * CUT], input_specs(model), window=CUT)

    def evaluate(pruned: onnx.ModelProto) -> str:
        data = open_tokens(test[: WINDOWS * WINDOW], input_specs(pruned), window=WINDOW)
        return f"{perplexity(pruned, data).perplexity:.1f}"

    return Network(
        "SmolLM2-135M (134.5 M parameters)",
        f"Perplexity on the first {WINDOWS} windows of {WINDOW:,} tokens of the WikiText-2 test set (smaller is "
        "better). "
        f"Calibration: the first {count} windows of {CUT} tokens of the validation set, {count * CUT:,} tokens.",
        model,
        calibration,
        evaluate,
    )


NETWORKS: dict[str, Callable[[Path, int | None], Network]] = {"minilm": minilm, "vit": vit, "smollm2": smollm2}


class Bench:
    """Measures one network, with a file of the figures there are."""

    def __init__(self, name: str, cache: Path, samples: int | None) -> None:
        self.network = NETWORKS[name](cache, samples)
        stem = name if samples is None else f"{name}-{samples}"
        self._figures, self._statistics = cache / f"{stem}.figures.json", cache / f"{stem}.safetensors"
        self._analysis: Analysis | None = None

    def statistics(self) -> Statistics:
        """Return the one calibration."""
        if not self._statistics.exists():
            calibrate(self.network.model, self.network.calibration).save(self._statistics)
        return Statistics.load(self._statistics)

    def figure(self, key: str, make: Callable[[], tuple[onnx.ModelProto, Result | None]]) -> dict[str, str]:
        """Return the figures of a model, measured at most once."""
        known: dict[str, dict[str, str]] = json.loads(self._figures.read_text()) if self._figures.exists() else {}
        if key not in known:
            model, result = make()
            shares = {} if result is None else _shares(result)
            known[key] = {"metric": self.network.evaluate(model), **shares}
            self._figures.write_text(json.dumps(known, indent=1))
            logger.info("%s %s: %s", self.network.title, key, known[key])
        return known[key]

    def pruned(self, chosen: str, select: str, recovery: str) -> tuple[onnx.ModelProto, Result]:
        """Prune the groups of one kind; `only` takes what has their weights, so others are made whole again."""
        statistics = self.statistics()
        groups = self._groups(statistics)
        names = tuple(group.name for group in groups if chosen in ("all", kind(group)))
        taken = [group for group in groups if any(group.matches(name) for name in names)]
        options = Options(target=Target("units", KEPT), select=select, recovery=recovery, only=names)
        result = prune(self.network.model, None, options, statistics=statistics)
        if len(taken) > len(names):
            kept = tuple(
                each if each.name in names else replace(each, kept=tuple(range(each.size)))
                for each in result.plan.groups
            )
            result = apply(replace(result.plan, groups=kept), self.network.model, statistics=statistics)
        return result.model, result

    def _groups(self, statistics: Statistics) -> tuple[Group, ...]:
        if self._analysis is None:
            self._analysis = analyse(self.network.model, statistics.input_shapes)
        return self._analysis.structure.prunable

    def rows(self, kinds: Sequence[str], selects: Sequence[str]) -> Iterator[list[str]]:
        """Yield the rows of the table."""
        for chosen in kinds:
            found = [self._cell(chosen, select, recovery) for select in selects for recovery in RECOVERIES]
            yield [chosen, found[0]["macs"], found[0]["parameters"], *(each["metric"] for each in found)]

    def _cell(self, chosen: str, select: str, recovery: str) -> dict[str, str]:
        if recovery == "channel" and chosen == "query-key pairs":
            return {"metric": "-"}
        return self.figure(f"{chosen}, {select}, {recovery}", lambda: self.pruned(chosen, select, recovery))


def _shares(result: Result) -> dict[str, str]:
    dense, pruned = (
        measure_cost(model, result.analysis.input_shapes) for model in (result.analysis.model, result.model)
    )
    return {
        "macs": f"{pruned.macs / dense.macs:.3f}",
        "parameters": f"{pruned.parameters / dense.parameters:.3f}",
    }


def section(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the section."""
    cache, selects = arguments.cache, arguments.selects
    yield HEADING
    yield TEXT
    for name in arguments.networks:
        bench = Bench(name, cache, arguments.samples)
        yield f"### {bench.network.title}\n"
        yield f"{bench.network.measure}\n"
        dense = bench.figure("dense", lambda b=bench: (b.network.model, None))
        yield f"The dense network has **{dense['metric']}**.\n"
        columns = [f"{select}, recovery {recovery}" for select in selects for recovery in RECOVERIES]
        head = ["units", "MACs", "parameters", *columns]
        yield (
            "\n".join(
                "| " + " | ".join(row) + " |"
                for row in (head, ["---"] * len(head), *bench.rows(arguments.kinds, selects))
            )
            + "\n"
        )
    ours, runtime = version("onnx-subprune"), onnxruntime.__version__
    yield "### How the transformers were measured\n"
    words = ["FOLDER" if word == str(cache) else word for word in sys.argv[1:]]
    yield f"    {shlex.join(['python', 'tools/bench_transformers.py', *words])}\n"
    yield f"onnx-subprune {ours}, onnxruntime {runtime}, numpy {np.__version__}; float32 on the CPU provider.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=tuple(NETWORKS))
    parser.add_argument("--cache", type=Path, required=True, help="folder of models, statistics and figures")
    parser.add_argument("--kinds", nargs="+", default=["MLP neurons", "heads", "value channels", "query-key pairs"])
    parser.add_argument("--selects", nargs="+", default=SELECTS, help="orderings of the units")
    parser.add_argument("--samples", type=int, help="calibrate on this many samples (sentences, images, windows)")
    parser.add_argument("--out", type=Path, help="Markdown page to put the section in")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    text = "\n".join(section(arguments))
    sys.stdout.write(text)
    if arguments.out:
        put(text, arguments.out)


if __name__ == "__main__":
    main()
