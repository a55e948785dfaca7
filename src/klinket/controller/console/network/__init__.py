"""Remote networks, connectors, resources."""
