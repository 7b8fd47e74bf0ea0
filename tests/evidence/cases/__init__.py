"""The conformance vectors of evidence, as code: `tests/evidence/vectors/` is written from here (make_vectors.py)."""
