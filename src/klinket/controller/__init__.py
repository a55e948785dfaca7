"""The controller: the only authority; never sees traffic."""
