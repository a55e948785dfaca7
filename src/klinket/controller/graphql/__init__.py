"""The Admin API: the contract's SDL served by graphql-core over the use cases (docs/reference/admin-api.md)."""
