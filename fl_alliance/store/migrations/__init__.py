"""Alembic's migrations of the journal; `store.migrate` runs them."""
