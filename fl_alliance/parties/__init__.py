"""The shell: coordinator, institution, auditor; configuration and wiring."""
