"""Random networks of the operators that have rules: a file per family of steps, put together in `strategy.py`."""
