"""DIRAC with a file for its configuration, and in it queues of a real cluster that it reaches over SSH."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from DIRAC.ConfigurationSystem.Client.ConfigurationData import gConfigurationData
from DIRAC.ConfigurationSystem.Client.Helpers.Resources import getQueues
from DIRAC.WorkloadManagementSystem.Utilities.QueueUtilities import (
    QueueCECache,
    getQueuesResolved,
)
from diraccfg import CFG

from stacks._engine import Engine
from stacks._life import Running

VO: Final = "ic"
SITE: Final = "LCG.Here.org"
PATIENCE_S: Final = 120.0
FINAL: Final = ("Done", "Failed", "Aborted", "Deleted")
#: Of the accounts of the stack's: the suite there uses another one.
ACCOUNT: Final = "bash"
HOMES: Final = {"bash": "/home/bash", "space": "/home/a home with spaces"}
#: PLACE: end all jobs of the submissions beneath it, and remove it.
_CLEAR: Final = """
names=$(cd "$1" 2>/dev/null && ls -d .intercede/*/* | sed 's,.*/,intercede-,')
/usr/bin/squeue --noheader --format='%A %j' | awk -v names="$names" '
  BEGIN { split(names, name, "\\n"); for (i in name) ours[name[i]] }
  $2 in ours && !seen[$1]++ { print $1 }' | xargs -r /usr/bin/scancel
for i in 1 2 3 4 5 6 7 8 9; do
  rm -rf "$1" 2>/dev/null && exit
  sleep 1
done
exec rm -rf "$1"
"""
_REPLACE: Final = """
mkdir -p ~/.front
printf '%s\\n' "$2" > ~/.front/."$1" && chmod 755 ~/.front/."$1" && mv ~/.front/."$1" ~/.front/"$1"
"""


class Site:
    """A site of DIRAC's whose queues are partitions of a real Slurm.

    Args:
        there: The stack.
        engine: Runs commands in its container.
    """

    def __init__(self, there: Running, engine: Engine) -> None:
        self.there = there
        self.cache = QueueCECache()
        self.unique = uuid.uuid4().hex[:10]
        self.area = f"dirac-{self.unique}"
        self._engine = engine
        self._accounts = {ACCOUNT}

    def parameters(self, account: str = ACCOUNT, **parameters: str) -> dict[str, str]:
        """What the configuration says of a CE that is this cluster."""
        self._accounts.add(account)
        return {
            "CEType": "InterCEde",
            "BatchSystem": "SLURM",
            "SSHHost": "127.0.0.1",
            "SSHPort": str(self.there.port),
            "SSHUser": account,
            "SSHKey": str(self.there.folder / "key"),
            "SSHKnownHosts": str(self.there.folder / "known_hosts"),
            "SharedArea": f"{HOMES[account]}/{self.area}",
            **parameters,
        }

    def configure(self, queues: Sequence[str] = ("main",), ce: str = "", **parameters: str) -> str:
        """Put a CE into DIRAC's configuration; return its name."""
        name = ce or f"ce-{uuid.uuid4().hex[:8]}"
        lines = [f"{key} = {value}" for key, value in self.parameters(**parameters).items()]
        inner = "\n".join(f"{queue}\n{{\n}}" for queue in queues)
        text = f"{name}\n{{\n" + "\n".join(lines) + f"\nQueues\n{{\n{inner}\n}}\n}}"
        for section in ("CEs", SITE, "LCG", "Sites", "Resources"):
            text = f"{section}\n{{\n{text}\n}}"
        cfg = CFG()
        cfg.loadFromBuffer(text)
        assert gConfigurationData.mergeWithLocal(cfg)["OK"]
        return name

    def queues(self, *ces: str) -> dict[str, Any]:
        """DIRAC's own description of queues, with the elements that its factory made, as agents get it."""
        found = getQueues(siteList=[SITE], ceList=list(ces), community=VO)
        resolved = getQueuesResolved(found["Value"], self.cache, vo=VO, instantiateCEs=True)
        assert resolved["OK"], resolved
        queues: dict[str, Any] = resolved["Value"]
        return queues

    def element(self, queue: str = "main", **parameters: str) -> Any:
        """The element of a new CE with one queue."""
        name = self.configure([queue], **parameters)
        return self.queues(name)[f"{name}_{queue}"]["CE"]

    def host(self, script: str, *words: str, user: str = ACCOUNT) -> str:
        """What a script of sh prints on the cluster, run in the user's home, past all that is on trial."""
        words = ("sh", "-c", f"cd\n{script}", "host", *words)
        return self._engine.run("exec", "--user", user, self.there.container, *words, timeout_s=60)

    @contextmanager
    def replaced(self, command: str, script: str, account: str = ACCOUNT) -> Iterator[None]:
        """The account gets this script instead of a command of Slurm's; `/usr/bin` has the real one."""
        self.host(_REPLACE, command, script, user=account)
        try:
            yield
        finally:
            self.host('rm -f ~/.front/"$1"', command, user=account)

    def in_slurm(self) -> list[str]:
        """Of each job that Slurm holds of this site's sandboxes, its state."""
        names = self.host('ls "$1"/.intercede/* 2>/dev/null || :', self.area).split()
        rows = self.host("/usr/bin/squeue -h -r -t all -o '%j %T'").splitlines()
        states = [row.split() for row in rows]
        return [state for name, state in states if name.removeprefix("intercede-") in names]

    def clear(self) -> None:
        """Leave nothing."""
        for account in self._accounts:
            self.host(_CLEAR, f"{HOMES[account]}/{self.area}", user=account)
        for name in list(self.cache._cache):
            self.cache.drop(name)


def value(result: dict[str, Any]) -> Any:
    """What an S_OK holds."""
    assert result["OK"], result
    return result.get("Value")


def ended(ce: Any, references: Sequence[str]) -> dict[str, str]:
    """The statuses of pilots, when all of them are final to DIRAC."""
    return seen(ce, references, lambda at: at in FINAL)


def seen(ce: Any, references: Sequence[str], wanted: Callable[[str], bool]) -> dict[str, str]:
    """The statuses of pilots, when all of them are as wanted."""
    until = time.monotonic() + PATIENCE_S
    while True:
        result = ce.getJobStatus(list(references))
        statuses: dict[str, str] = result.get("Value", {})
        if sorted(statuses) == sorted(references) and all(map(wanted, statuses.values())):
            return statuses
        assert time.monotonic() < until, result
        time.sleep(0.3)
