"""Mutated bytes into every parser that reads foreign ones: `python -m tests.fuzz --inputs 1000000`."""
