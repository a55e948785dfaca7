"""The admin console: pages made on the server, over the same use cases as the Admin API. `gate` decides who gets in."""
