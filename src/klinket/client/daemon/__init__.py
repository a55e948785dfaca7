"""The client as a daemon: one session for a whole machine, its capture, and the commands that speak to it."""
