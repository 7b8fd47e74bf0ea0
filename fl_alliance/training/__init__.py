"""Qwen, LoRA and Opacus: records in, a bounded and noised update out."""
