"""Benches: one command each, one table, ratios in the same run, the same figures as JSON."""
