"""How programs' connections come to a client: local proxies, and the namespace of `klinket run`."""
