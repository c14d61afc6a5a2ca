"""What the tests are given."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from DIRAC import gLogger
from DIRAC.ConfigurationSystem.Client.ConfigurationData import gConfigurationData
from dirac_site import Site
from diraccfg import CFG

from stacks._engine import find_engine
from stacks._life import running
from stacks._manifest import stacks

# Agents import the clients of DIRAC's databases, which only its servers have. There is no database here.
sys.modules |= dict.fromkeys(
    ["MySQLdb", "opensearchpy", "opensearchpy.exceptions", "opensearchpy.helpers"], MagicMock()
)


@pytest.fixture(scope="session", autouse=True)
def configuration() -> None:
    """What DIRAC wants to know besides the site."""
    gLogger.setLevel("FATAL")
    cfg = CFG()
    cfg.loadFromBuffer(
        "Registry\n{\nGroups\n{\nic_user\n{\nVO = ic\n}\n}\n}\nDIRAC\n{\nVirtualOrganization = ic\n}"
    )
    assert gConfigurationData.mergeWithLocal(cfg)["OK"]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(running(stacks()["slurm-forky"]), find_engine())
    yield site
    site.clear()


@pytest.fixture
def pilot(tmp_path: Path) -> Callable[..., str]:
    """Writes an executable, as the SiteDirector does, and returns its path."""

    def write(script: str = "echo hello from $DIRAC_PILOT_STAMP; echo oops >&2") -> str:
        path = tmp_path / f"DIRAC_{uuid.uuid4().hex[:6]}_pilotwrapper.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o700)
        return str(path)

    return write
