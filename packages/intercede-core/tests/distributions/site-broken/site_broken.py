"""Fails to import."""

raise RuntimeError("licence server not found")
