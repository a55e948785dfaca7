"""Signing in with an identity provider (OpenID Connect 1.0, authorization code flow with PKCE); needs the extra `oidc`."""
