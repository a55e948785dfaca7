"""Programs that show klinket at work."""
