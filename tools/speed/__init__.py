"""What `tools/bench_latency.py` is made of: the networks, one figure at a time, and the page."""
