"""Qwen + LoRA + Opacus: records in, bounded noised update out. The one room that imports torch.

Importing it makes the Hugging Face libraries of this process work offline: a training job never reaches for a hub.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
