"""The connector: dials out of a private network, checks every flow against a signed grant, then dials the resource."""
