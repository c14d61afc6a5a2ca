"""How this machine's apt reaches Debian's packages, handed to the builds.

A build has its own root, so that proxies, mirrors and certificates of this machine do not hold there. They are put beside the recipe for
the time of the build, mounted for the commands that need them, and stay in no image.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["MOUNTED", "mirror", "write_settings"]

#: Where a recipe finds apt's settings: `RUN --mount=type=bind,source=.apt,target=/mnt/apt`, with APT_CONFIG=/mnt/apt/apt.conf.
MOUNTED: Final = "/mnt/apt"
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_TARGETS: Final = "$(LABEL)|$(REPO_URI)"


def mirror() -> str | None:
    """Where this machine has Debian's packages from; None if it is no Debian."""
    said = _apt("apt-get", "indextargets", "--format", _TARGETS, "Created-By: Packages")
    rows = [line.split("|") for line in said.splitlines() if line.count("|") == 1]
    labelled = [uri for label, uri in rows if label == "Debian"]
    # Before the first `apt-get update` nothing has a label.
    named = [uri for _, uri in rows if urlsplit(uri).path.strip("/").split("/")[-1] == "debian"]
    return next(iter([*labelled, *named]), None)


def write_settings(folder: Path, suite: str) -> None:
    """Write apt.conf, sources.list and the certificates for a build on this suite."""
    folder.mkdir(mode=0o700)
    lines = [line for line in _apt("apt-config", "dump").splitlines() if _is_about_reaching(line)]
    lines += [
        'APT::Install-Recommends "false";',
        'Dpkg::Use-Pty "false";',
        'Acquire::Retries "3";',
        # A suite that is still in the making, on a mirror that lags.
        'Acquire::Check-Valid-Until "false";',
    ]
    where = mirror()
    if where is not None:
        (folder / "sources.list").write_text(f"deb {where} {suite} main\n")
        lines += [
            f'Dir::Etc::SourceList "{MOUNTED}/sources.list";',
            'Dir::Etc::SourceParts "/dev/null";',
        ]
    if _CERTIFICATES.exists():
        shutil.copyfile(_CERTIFICATES, folder / "certificates.crt")
        lines.append(f'Acquire::https::CaInfo "{MOUNTED}/certificates.crt";')
    (folder / "apt.conf").write_text("\n".join(lines) + "\n")


def _is_about_reaching(line: str) -> bool:
    """Whether a setting says how to come to the packages, and not where this machine keeps things."""
    return line.startswith(
        ("Acquire::http", "Acquire::ftp", "Acquire::Force", "Acquire::Languages")
    )


def _apt(*command: str) -> str:
    """What apt's command says; nothing where there is no apt."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout
