"""Ends the process when imported."""

import sys

sys.exit("go away")
