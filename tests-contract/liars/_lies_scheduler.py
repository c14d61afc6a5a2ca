"""Liars about N: a scheduler's language."""
