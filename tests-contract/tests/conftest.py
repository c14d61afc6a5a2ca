"""A place for the sandboxes of this run, the same in all of its processes, and gone at its end."""

import os
import shutil
import tempfile
import uuid

import pytest

ROOT = "INTERCEDE_CONTRACT_ROOT"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        place = f"intercede-contract-{uuid.uuid4().hex[:12]}"
        os.environ[ROOT] = os.path.join(tempfile.gettempdir(), place)  # noqa: PTH118


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(ROOT, ""), ignore_errors=True)
