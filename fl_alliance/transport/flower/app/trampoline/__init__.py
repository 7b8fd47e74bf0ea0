"""A name for a run; see nothing.py."""
