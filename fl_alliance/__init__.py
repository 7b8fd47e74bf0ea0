"""Institutions fine-tune Qwen adapters together without sharing a record.

The rooms, from the ground up: `errors`, `protocol`, then `privacy`, `secagg` and `evidence`, then `rounds`, then
`training`, `store` and `transport`, then `parties`. docs/architecture.md draws them.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
