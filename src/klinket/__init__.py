"""klinket."""
