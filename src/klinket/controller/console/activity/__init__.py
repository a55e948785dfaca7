"""Flows, cuts, trends, the audit."""
