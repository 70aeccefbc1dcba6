"""Latency as a target: predicted, measured, and what of the MACs saved it is; a table in docs/latency.md.

    python tools/bench_latency.py --cache FOLDER --model ch_PP-OCRv4_det_infer.onnx --rival RIVAL_VENV/bin/python
    python tools/bench_latency.py --networks resnet56 --targets 0.7 0.5 --batches 1 64
    python tools/bench_latency.py --write-only

Every network is pruned to each latency at each batch; then, at the MACs that this left, with each rounding and by
`onnxsim.pruning`. Figures are kept in docs/latency.json: one that was measured once with the same settings is not
measured again (--again does), so an interrupted run goes on, and the page can be written from the file alone.

Measure on a machine that does nothing else. With --threads 1 (the default) processor time is measured, which others
disturb least. What is learnt of the machine stands in $ONNX_SUBPRUNE_CACHE; --remeasure forgets it.

FOLDER holds `minilm.onnx`, `sts-dev.npz` and `sts-test.npz` (tools/export_minilm.py). The detector is in the package
rapidocr-onnxruntime 1.4.4 (`pip download --no-deps`, then unzip), the rival in an environment of its own:

    python -m venv RIVAL_VENV && RIVAL_VENV/bin/pip install onnxsim==0.8.1 onnxruntime
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from speed.measure import Bench, Store
from speed.networks import NETWORKS
from speed.page import key_of, write

from onnx_subprune.latency import machine
from onnx_subprune.options import ALLOCATIONS, AUTO, EFFORTS, Target

ROOT = Path(__file__).resolve().parents[1]


def measure(name: str, arguments: argparse.Namespace, store: Store) -> None:
    """All figures of a network."""
    timed = NETWORKS[name]
    chosen = {"effort": arguments.effort, "samples": arguments.samples, "threads": arguments.threads or None}
    chosen |= {"providers": tuple(arguments.providers), "remeasure": arguments.remeasure}
    if arguments.allocation:
        chosen["allocation"] = arguments.allocation
    opened = timed.opener(arguments.cache or Path(), arguments.model)
    bench = Bench(name, timed, opened, chosen, arguments.rival, arguments.metric)
    for batch in arguments.batches or (1, timed.large):
        for target in arguments.targets:
            _measure_target(bench, Target("latency", target), batch, arguments, store)


def _measure_target(bench: Bench, target: Target, batch: int, arguments: argparse.Namespace, store: Store) -> None:
    again, setting = arguments.again, _setting(arguments)

    def key(what: str) -> str:
        return key_of(bench.name, batch, str(target), setting, what)

    ours = store.measured(key("ours"), lambda: bench.pruned(target, 1, batch), again=again)
    if "macs" not in ours:
        return
    equal = Target("macs", ours["macs"])
    for step in arguments.round_to:
        made = lambda step=step: bench.pruned(equal, step if step == AUTO else int(step), batch)  # noqa: E731
        store.measured(key(f"same MACs, round {step}"), made, again=again)
    if arguments.rival:
        store.measured(key("same MACs, onnxsim"), lambda: bench.onnxsim(ours["macs"], batch), again=again)


def _setting(arguments: argparse.Namespace) -> str:
    parts = [f"--effort {arguments.effort}"]
    parts += [f"--allocation {arguments.allocation}"] if arguments.allocation else []
    parts += [f"--providers {','.join(arguments.providers)}", f"{arguments.samples} samples"]
    return ", ".join([*parts, f"threads: {arguments.threads or 'all'}"])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--json", type=Path, default=ROOT / "docs" / "latency.json", help="file of all figures")
    add("--out", type=Path, default=ROOT / "docs" / "latency.md", help="the page")
    add("--write-only", action="store_true", help="measure nothing")
    add("--cache", type=Path, help="folder of models and data that are made elsewhere")
    add("--model", type=Path, help="the text detector ch_PP-OCRv4_det_infer.onnx")
    add("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS), metavar="NAME", help="only these")
    add("--targets", nargs="+", type=float, default=(0.7, 0.5), help="shares of the dense network's time")
    add("--batches", nargs="+", type=int, help="1 and a large one of the network's own by default")
    add("--round-to", nargs="*", choices=("1", "8", "16", AUTO), default=("1", AUTO), help="at the same MACs")
    add("--rival", help="a Python that has onnxsim 0.8.1")
    add("--effort", choices=tuple(EFFORTS), default="balanced", help="of the pruning")
    add("--allocation", choices=ALLOCATIONS, help="of the pruning, where it is not the effort's")
    add("--samples", type=int, default=512, help="that calibrate")
    add("--metric", action="store_true", help="measure accuracy on the whole test sets too")
    add("--threads", type=int, default=1, help="0 for the runtime's own choice")
    add("--providers", nargs="+", default=("cpu",), help="execution providers")
    add("--remeasure", action="store_true", help="forget what was learnt of this machine")
    add("--note", default="", help="what the page says of how this was measured")
    add("--again", action="store_true", help="measure figures anew that are in the file")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("onnx_subprune").setLevel(logging.ERROR)
    store = Store(arguments.json)
    for name in () if arguments.write_only else arguments.networks:
        measure(name, arguments, store)
    facts = machine(arguments.providers, arguments.threads or None)
    where = f"{facts['processor']}, ONNX Runtime {facts['onnxruntime']}"
    write(store.figures, arguments.out, where, arguments.note)


if __name__ == "__main__":
    main()
