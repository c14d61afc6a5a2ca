"""Build a wheel and an sdist of every distribution: `python .ci/build.py DIRECTORY`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def projects() -> list[Path]:
    """The folders of the distributions, the one without code included."""
    return [
        ROOT,
        *sorted(p.parent for p in ROOT.glob("packages/*/pyproject.toml")),
        ROOT / "tests-contract",
    ]


def main() -> None:
    """Build into the directory; stop at the first that fails."""
    out = Path(sys.argv[1]).resolve()
    for project in projects():
        command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out)]
        subprocess.run(command, cwd=project, check=True)


if __name__ == "__main__":
    main()
