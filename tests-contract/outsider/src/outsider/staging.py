"""What goes into a job's directory before it starts."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from intercede.core import CopyVars, SpecRefused, SubmissionSpec

__all__ = ["check", "script", "stage"]

#: What plain processes know nothing of. Taking it silently would be a lie, so it is refused, with the field that is meant (S6).
_PLAIN: Mapping[str, object] = {
    "memory_mb": None,
    "wall_time_s": None,
    "gpus": 0,
    "nodes": 1,
    "whole_node": False,
    "queue": None,
}


def check(spec: SubmissionSpec, copies: Sequence[CopyVars]) -> str:
    """Refuse what cannot be honoured, before anything is written. Returns what to run.

    Raises:
        SpecRefused: Naming the field.
    """
    if spec.resources.cpus > (os.cpu_count() or 1):
        raise _refused("resources.cpus", f"{spec.resources.cpus} are more than this machine has")
    for name, plain in _PLAIN.items():
        value = getattr(spec.resources, name)
        if value != plain:
            raise _refused(f"resources.{name}", f"{value!r} cannot be had here")
    if spec.container is not None:
        raise _refused("container", "there are none here")
    if any(member.destination is not None for member in spec.outputs.members):
        raise _refused("outputs.destination", "nothing is uploaded from here")
    for index, ref in enumerate(spec.inputs):
        if ref.url is not None:
            raise _refused(f"inputs[{index}].url", "nothing is downloaded here")
        if ref.source is not None:
            _check_source(f"inputs[{index}].source", Path(ref.source))
    for variant in copies:
        _check_secrets(spec, variant)
    if spec.resident:
        program = shutil.which(spec.executable)
        if program is None:
            raise _refused("executable", f"{spec.executable!r} is not on this machine")
        return program
    if not Path(spec.executable).is_file():
        raise _refused("executable", f"{spec.executable!r} is not a file")
    return f"./{spec.executable_name}"


def _refused(field: str, message: str) -> SpecRefused:
    return SpecRefused(field, message, remedy="change it, or choose another resource")


def _check_source(field: str, source: Path) -> None:
    """Files and directories of files: a link could lead out of the sandbox, and a FIFO would never end."""
    if source.is_file():
        return
    if not source.is_dir():
        raise _refused(field, f"{str(source)!r} is neither a file nor a directory")
    for folder, names, files in os.walk(source):
        for name in (*names, *files):
            mode = Path(folder, name).lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise _refused(field, f"{str(Path(folder, name))!r} is no plain file or directory")


def _check_secrets(spec: SubmissionSpec, variant: CopyVars) -> None:
    taken = [ref.name for ref in spec.inputs]
    if spec.executable_name is not None:
        taken.append(spec.executable_name)
    for name in variant.secrets:
        if any(f"{name}/".startswith(f"{t}/") or f"{t}/".startswith(f"{name}/") for t in taken):
            raise _refused("copies.secrets", f"{name!r} is the place of an input")


def stage(spec: SubmissionSpec, variant: CopyVars, place: Path) -> None:
    """Lay out what one copy is given; its script copies it into `work`.

    The program that runs must not be a file that this process has written: another thread may start a process just while we have it open
    for writing, which that one then inherits, and the system refuses to run a file that anybody has open for writing (ETXTBSY).
    """
    given = place / "inputs"
    given.mkdir(mode=0o700, parents=True)
    (place / "work").mkdir(mode=0o700)
    for ref in spec.inputs:
        target = given / ref.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if ref.content is not None:
            target.write_bytes(ref.content)
        elif Path(str(ref.source)).is_dir():
            shutil.copytree(str(ref.source), target)
        else:
            shutil.copyfile(str(ref.source), target)
            target.chmod(Path(str(ref.source)).stat().st_mode & 0o700 | 0o600)
        if ref.executable:
            target.chmod(0o700)
    if spec.executable_name is not None:
        shutil.copyfile(spec.executable, given / spec.executable_name)
        (given / spec.executable_name).chmod(0o700)
    for name, secret in variant.secrets.items():
        target = given / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Private from its first moment.
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secret)


def script(
    spec: SubmissionSpec, variant: CopyVars, program: str, submission: Path, copy: int
) -> bytes:
    """The script that runs one copy. All that comes from outside is quoted, byte for byte (S4)."""
    values = {**spec.environment, **variant.environment, "INTERCEDE_COPY": str(copy)}
    exports = "\n".join(f"  export {name}={_quoted(value)}" for name, value in values.items())
    words = " ".join(map(_quoted, (program, *spec.arguments)))
    text = f"""\
cd {_quoted(str(submission / str(copy)))} || exit
# Killed before it began.
[ ! -e end ] || exit
: >began
(
  exec >stdout 2>stderr
  cp -R -p inputs/. work/ && rm -rf inputs && cd work || exit
{exports}
  exec {words}
)
echo "exit $?" >end.new
ln end.new end
rm -f end.new
"""
    return os.fsencode(text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
