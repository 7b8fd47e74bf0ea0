"""Sign, bundle, verify: what an auditor runs offline, in numbered steps."""
