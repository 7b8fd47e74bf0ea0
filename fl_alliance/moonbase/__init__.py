"""Model registry and studio, beside the core. Nothing is built here yet."""
