"""The shared language: ids, limits, canonical bytes, envelopes, messages and documents. No clock, no I/O."""
