"""Capture of a whole machine: own nftables table and routes, DNS by packet, and nothing written to any file.

Everything it claims has a constant name (`rules`, `routes`), so that whoever comes later can take it away.
"""
