"""Commands: parse arguments, compose, print."""
