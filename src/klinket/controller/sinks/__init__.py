"""Delivery of events to sinks. One file a kind; each has a `deliver` that blocks, and raises on failure."""
