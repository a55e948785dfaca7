"""Sockets, TLS, tasks and clocks: the only place where bytes move (docs/explanation/architecture.md)."""
