"""The README's program runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_runs_as_it_stands() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 3
    program = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_the_readme_names_every_kind_of_fault_and_every_verb() -> None:
    from intercede.fake import FaultKind
    from intercede.fake._payload import _VERBS

    text = README.read_text()
    assert [kind for kind in FaultKind if f"`{kind}`" not in text] == []
    assert [verb for verb in _VERBS if not re.search(rf"`{verb}[ `]", text)] == []
