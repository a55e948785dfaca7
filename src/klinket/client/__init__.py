"""The client: logs in with a service key, opens flows for programs, seals them end to end to a connector."""
