"""Signing in to the console: passwords, second factors, passkeys, links, identity providers, own account."""
