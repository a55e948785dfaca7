"""Ways in which a program's traffic reaches the client: proxies, and a network namespace of its own."""
