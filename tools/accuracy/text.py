"""The words of the page."""

from __future__ import annotations

INTRODUCTION = """\
# Results

How much accuracy is left when a network shrinks and nothing is trained: every network and every method at the same
sizes, on the test data that each table names. Calibration sees no labels and no test data. A share of the MACs (or of
the parameters) is measured on the file that comes out, in the same way for every program; where it is not within 0.0026
of the share that was asked for, the table says at which share the figure was taken.

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

The goals were set before any of this was measured, high on purpose. Of onnx-subprune the default is shown, effort
`balanced`.
"""
WHY = """\
**What held it back.** Not the number of samples: from 512 on the accuracy of ResNet-56 no longer rises with them.
Not one layer alone: two layers fitted jointly by Gauss-Newton came no further at ten times the cost. Not the budget:
other ways to share the target end within the spread of the seeds (the same share of every group is 4 points worse at
half of the MACs). Effort best, with twice the rows a fit and a second sweep, gains up to half a point at 30% of the
MACs of the ResNets, and 0.8 at 80% of EfficientNet's, where it reaches the goal with 84.0. What remains is capacity at
the widths that the budget gives, and that no step looks at labels or at the loss: layers are fitted to be like the
dense ones, also where that matters to no class. EfficientNet is calibrated on ten classes for three quarters; fitting
layers behind their Relu6 to what that lets through brought it from 69.0 to 72.4 at 60% of the MACs. In SmolLM2 four
times the tokens bring the perplexity after recovery by channel from 32.5 to 31.4 and from 50.5 to 49.1; exact recovery
on the quarter of them reaches 31.9 and 48.6. The network is small for what it knows: most neurons matter. On MiniLM
the methods differ by less than the benchmark tells: on sentences of the development set that were not calibrated on,
embeddings after exact recovery are half as far from the dense ones (1 - cosine .014 and .040) as after recovery by
channel (.026 and .075).

**Tried and not kept**: pruning in steps (70%, 50%, 30%, each from statistics of the last); losses by the
Kullback-Leibler divergence of the classes; three or four widths for every group's measured loss, and 8, 32 or 64
samples for it in the place of 16; images mixed with each other and augmented; a classifier fitted by logistic
regression to the dense network's soft classes; the joint fits above. The parts that were kept, with their shares,
stand in [the mathematics](mathematics.md#11-exact-and-sequential-recovery).
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
session options: the median of three pairs. Where the time goes is sampled from the stack, by package;
*runs of the network* are those of ONNX Runtime, whoever asks for them; *threads* is time in which the package that
sums waits for runs and rows that are made beside it. [cost.md](cost.md) says more about time,
memory and latency.
"""
HOW = """\
## How this was measured

    python tools/bench_accuracy.py --cache FOLDER --rival PYTHON --torch PYTHON

measures whatever is not in `docs/results.json` yet and writes this page and its plots; with `--write-only` the page
alone, from that file. The program says what FOLDER holds and how the rivals' environments are made. Models run in
float32 on the CPU provider, on one thread; what it costs was measured on all cores. Nothing was tuned on test data.

Made with: {made}.
"""
