"""Check how many branches of the distributions that matter most were taken: `python .ci/branches.py COVERAGE.json`.

Reads what `coverage json` wrote. Prints a line per distribution and ends with 1 if one of `FLOOR` is below its floor.
"""

import json
import sys
from collections import Counter
from pathlib import Path

#: Percent of branches, by distribution. The others are shown, not judged.
FLOOR = {
    "intercede-core": 95.0,
    "intercede-toolkit": 95.0,
    "intercede-backend-batch": 95.0,
    "intercede-scheduler-direct": 95.0,
    "intercede-scheduler-slurm": 95.0,
}


def main() -> int:
    """Print the table; return the exit code."""
    taken: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, report in json.loads(Path(sys.argv[1]).read_text())["files"].items():
        folder, _, rest = name.partition("/")
        distribution = rest.partition("/")[0] if folder == "packages" else "intercede-contract"
        taken[distribution] += report["summary"]["covered_branches"]
        total[distribution] += report["summary"]["num_branches"]

    short = []
    for distribution in sorted({*total, *FLOOR}):
        percent = 100 * taken[distribution] / total[distribution] if total[distribution] else 0.0
        floor = FLOOR.get(distribution)
        if floor is not None and percent < floor:
            short.append(distribution)
        note = "" if floor is None else f"  (at least {floor:g} %)"
        print(f"{distribution:28} {percent:6.1f} % of {total[distribution]:4} branches{note}")
    if short:
        print(f"too few branches taken: {', '.join(short)}", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
