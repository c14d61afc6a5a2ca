"""A misspelt name is found before the program runs."""

from intercede import core
from intercede.core import Submitor  # E: attr-defined

print(core.JobBakend)  # E: attr-defined
print(Submitor)
