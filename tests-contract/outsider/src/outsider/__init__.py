"""Plugins for interCEde, written by somebody else: a scheduler, a transport and a backend, each in a module of its own."""
