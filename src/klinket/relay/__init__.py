"""The relay: joins a client's connection with a connector's and moves bytes it cannot read."""
