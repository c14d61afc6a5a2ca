"""Real daemons for the tests."""
