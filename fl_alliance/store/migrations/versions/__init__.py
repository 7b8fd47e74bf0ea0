"""One file for each migration, named by its place."""
