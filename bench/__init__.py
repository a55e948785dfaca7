"""Measurements, always beside a peer in the same run: absolute figures say more about the machine."""
