"""Pure state machines: the coordinator's job and the institution's. Events in, effects out; no clock, no I/O."""
