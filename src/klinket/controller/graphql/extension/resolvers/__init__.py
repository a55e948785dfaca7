"""One file a noun of the extension; each gives FIELDS, as the contract's resolvers do."""
