"""Journal, ledger file, blobs and secrets on disk."""
