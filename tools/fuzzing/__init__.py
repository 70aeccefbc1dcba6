"""Damaged models and data, and a process that runs commands on them; `tools/fuzz.py` puts them together."""
