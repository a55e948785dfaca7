"""What the network is set to: API tokens, relays, sinks, keys, and what options of the controller say."""
