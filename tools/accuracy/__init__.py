"""Accuracy against size, for every network and every method: what tools/bench_accuracy.py is made of.

networks   which networks, on what data, how they are measured, and at which sizes
methods    which methods: presets of this program, and its rivals
figures    what was measured, kept in a JSON file
measure    makes one figure
rivals     drives the rivals, each in an interpreter of its own (child, onnxsim_child, torch_child, torch_graph)
studies    numbers of samples, subsets of the pool, time (sampler)
page, plots, text    docs/results.md, from the figures alone
"""
