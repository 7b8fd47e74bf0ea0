"""Flower as a carrier of opaque bytes, boxed in (see docs/decisions/0004-flower-boxed-in.md).

The environment is set here, before any module below imports flwr: nothing is looked up and nothing is reported.
"""

from __future__ import annotations

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
