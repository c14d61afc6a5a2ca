"""Somebody else's package, which makes a regular package of what should be a namespace."""
