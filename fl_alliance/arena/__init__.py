"""Contests between models, beside the core. Nothing is built here yet."""
