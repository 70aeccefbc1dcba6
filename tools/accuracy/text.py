"""The words of the page."""

from __future__ import annotations

INTRODUCTION = """\
# Results

How much accuracy is left when a network shrinks and nothing is trained: every network and every method at the same
sizes, on whole test sets. Calibration sees no labels and no test data. A share of the MACs (or of the parameters) is
measured on the file that comes out, in the same way for every program; where it is not within 0.0026 of what was asked
for, the table says at which share the figure was taken.

- `onnxsim.pruning` (onnxsim 0.8.1) removes the same share of the channels of every layer it understands, which is
  searched so that the size comes out. *Norm* ranks by the weights, *Wanda* by weights times activations. Its head
  pruning for fused attention runs too.
- Torch-Pruning 1.6.1 does the same in PyTorch, by magnitude, without its fine-tuning; *inner channels only*
  leaves the residual streams whole. The network is rebuilt from the ONNX file (and held to its
  outputs), pruned, and exported; the zero-padded shortcuts of the CIFAR ResNets as fixed 1x1 convolutions, whose
  channels it follows.
- *The paper's method* is onnx-subprune with `--select zca --recovery channel`, one pass.
- *Low-rank factorisation* is `onnx-subprune factorise`: layers become two of a smaller rank, at the same size, chosen
  among all layers of the network.
- *OBS order* is `--select obs`, which asks what the readers of a unit lose; *budget by loss* adds `--allocation loss`;
  *exact recovery, layer after layer* is `--recovery exact`, fitted to the network as it is pruned so far.
"""
GOALS = """\
## The goals

The goals were set before any of this was measured, high on purpose.
"""
NOTES = "What the methods without a figure say:\n"
SAMPLES_TEXT = """\
## How many calibration samples

{network}, {budget}, by the number of calibration samples, the first of the file.
"""
SEEDS_TEXT = """\
## Which calibration samples

The same number of samples as above: the first of the file (subset 0), and {seeds} subsets in all, the others drawn at
random from all that there are. What does not look at the samples does not vary.
"""
COST = """\
## What it costs

The whole of pruning (load to save) over plain inference of the same calibration samples, in turns, with the same
session options: the median of three pairs. Where the time goes is sampled from the stack, by the rooms of the package;
*runs of the network* are those of ONNX Runtime, whichever room asks for them. [cost.md](cost.md) says more about time,
memory and latency.
"""
HOW = """\
## How this was measured

    python tools/bench_accuracy.py --cache FOLDER --rival PYTHON --torch PYTHON

measures whatever is not in `docs/results.json` yet and writes this page and its plots; with `--write-only` the page
alone, from that file. The program says what FOLDER holds and how the rivals' environments are made. Models run in
float32 on the CPU provider, on one thread. Nothing was tuned on test data.

Made with: {made}.
"""
