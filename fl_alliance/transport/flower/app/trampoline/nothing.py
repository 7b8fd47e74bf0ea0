"""Deliberately empty. Flower wants a bundle to name a run; no party of the alliance loads this module."""

raise RuntimeError("the trampoline app is a name, not a program")
