"""The sandbox on the host, in shell: what is done to it, as text.

    <root>/<submission>/meta       resource, number of copies; the tag; the specification without its inputs, as JSON
    <root>/<submission>/select     which files of a copy are its output, as a shell function
    <root>/<submission>/runner, inputs/, <copy>/   as the toolkit's runner has them
    <root>/<submission>/attempt/   the one attempt to submit: owner, N.in, N.out, N.err, N.code, done
    <root>/<submission>/<copy>/gone   when it was first seen to have left the queue without a record of its end
    <root>/<submission>/<copy>/ended  how it ended, as far as that is the scheduler's word: one line, so that the status stays
    <root>/<submission>/<copy>/lost   the grace is over: a record that appears later is not believed, so that the status stays

The payload runs in the same account and can forge all of it: it is daemon output, not truth to trust. Only names that were parsed
(letters, digits and `._:@+-`) are put into these texts unquoted.

Pure: text in, text out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Final

from intercede.core import Command, CopyVars, SubmissionSpec
from intercede.toolkit import KILLED, print_data, quote, quote_pattern

__all__ = [
    "ATTEMPT_CANCELLED",
    "ATTEMPT_DEAD",
    "ATTEMPT_DONE",
    "ATTEMPT_OPEN",
    "ATTEMPT_STAGED",
    "PACK_GNU_TAR",
    "PROBE_TAR",
    "TAR_GNU",
    "TAR_NONE",
    "UNPACK_TAR",
    "attempt",
    "attempt_input",
    "enter",
    "lines_after",
    "make_root",
    "mark_killed",
    "purge",
    "read_attempts",
    "read_ends",
    "search_tag",
    "select_function",
    "stage",
    "staged_counts",
    "stream_output",
    "tails",
    "unknown_submissions",
]

#: What became of the attempt to submit.
ATTEMPT_STAGED = "staged"
ATTEMPT_OPEN = "open"
ATTEMPT_DEAD = "dead"
ATTEMPT_DONE = "done"
ATTEMPT_CANCELLED = "cancelled"

#: What the probe tells of the host's tar: "none", or one that unpacks what we send; only GNU's packs what we ask for.
TAR_NONE = "none"
TAR_GNU = "gnu"
TAR_OTHER = "other"
PROBE_TAR = """\
tar=none
if command -v tar >/dev/null; then
  case $(tar --version 2>/dev/null) in *"GNU tar"*) tar=gnu;; *) tar=other;; esac
fi
echo "tar $tar"
"""
#: 64 KiB at once, as much as a pipe holds, and not the usual 10: a large file to the host takes a quarter less time.
_BLOCKING = "--blocking-factor=128"
#: By what the probe tells.
UNPACK_TAR: Final = {
    TAR_GNU: f"tar -x -o -p -f - {_BLOCKING}",
    TAR_OTHER: "tar -x -o -p -f -",
}
PACK_GNU_TAR = (
    f"tar --create --file=- {_BLOCKING} --format=gnu --null --no-recursion --hard-dereference --quoting-style=escape"
    " --files-from=-"
)

#: A root that is a link, or somebody else's, is a trap: what we write there could be read or changed by others.
_CHECK_ROOT = """\
refuse() { frame say; printf 'refused %s\\n' "$1"; frame ended; exit 0; }
case $root in "~") root=$HOME;; "~/"*) root=$HOME/${root#"~/"};; /*) ;; *) root=$HOME/$root;; esac
[ ! -h "$root" ] || refuse "$root is a symbolic link"
"""

_OWNED = """\
[ -d "$root" ] || refuse "$root is not a directory"
[ -O "$root" ] || refuse "$root belongs to somebody else"
cd "$root" || refuse "$root cannot be entered"
"""


def enter(root: str) -> str:
    """Go to the sandbox root; say `absent` and end if there is none."""
    return (
        f"root={quote(root)}\n{_CHECK_ROOT}"
        '[ -e "$root" ] || { frame say; echo "absent"; frame ended; exit 0; }\n'
        f"{_OWNED}"
    )


def make_root(root: str) -> str:
    """Go to the sandbox root, made if absent, private in any case."""
    return (
        f"root={quote(root)}\n{_CHECK_ROOT}"
        'said=$(mkdir -p "$root" 2>&1) || refuse "$said"\n'
        f"{_OWNED}"
        'chmod 700 . || refuse "$root cannot be made private"\n'
    )


# ---------------------------------------------------------------- submit


def stage(submission: str, copies: int, end_mark: str, unpack: str) -> str:
    """Unpack the stream that follows; it is whole when its last member holds the end mark.

    Args:
        submission: Its name.
        copies: How many.
        end_mark: What the file `complete` must hold.
        unpack: Makes the files, in shell.
    """
    return f"""\
part=.part.{submission}
fail() {{ cd "$root"; rm -rf "$part"; frame say; printf '%s\\n' "failed $1"; frame ended; exit 0; }}
if [ ! -e {submission} ]; then
  # What submitters left that died while they staged; none stages for two days.
  set -- .part.*
  [ ! -e "$1" ] || find "$@" -prune -mtime +1 -exec rm -rf {{}} +
  rm -rf "$part"
  said=$(mkdir "$part" 2>&1) || fail "$said"
  cd "$part" || fail "it vanished"
  i=0
  said=$(while [ "$i" -lt {copies} ]; do echo "$i"; i=$((i + 1)); done | xargs mkdir -p 2>&1) || fail "$said"
  unpack_all() {{
{unpack}
  }}
  said=$(unpack_all 2>&1) || fail "$said"
  mark=; {{ read -r mark < complete; }} 2>/dev/null
  [ "$mark" = {end_mark} ] || fail "the stream was cut"
  cd "$root" || fail "it vanished"
  said=$(mv "$part" {submission} 2>&1) || fail "$said"
fi
frame say; echo staged
"""


#: Sets $here to the name of this host. (A process for each thing that the shell knows by itself would be most of what a submit costs.)
_HERE = "{ read -r here < /proc/sys/kernel/hostname; } 2>/dev/null || here=$(uname -n)"

_ATTEMPT_STATE = (
    f"{_HERE}\n"
    + """\
# attempt_state SUBMISSION: sets $attempt.
attempt_state() {
  attempt=staged
  [ -d "$1/attempt" ] || return 0
  attempt=done
  [ ! -e "$1/attempt/done" ] || return 0
  attempt=cancelled
  [ ! -e "$1/attempt/cancelled" ] || return 0
  attempt=open
  since=; { read -r where pid since < "$1/attempt/owner"; } 2>/dev/null
  if [ -z "$since" ]; then
    # Whoever claimed it is about to say so, or died before.
    [ -z "$(find "$1/attempt" -prune -mmin +1)" ] || attempt=dead
    return 0
  fi
  [ "$where" = "$here" ] || return 0
  line=; { read -r line < "/proc/$pid/stat"; } 2>/dev/null
  line=${line##*) }
  set -- "$1" $line
  [ "${21}" = "$since" ] || attempt=dead
  # It may have ended while we looked.
  [ ! -e "$1/attempt/done" ] || attempt=done
}
# show_attempt SUBMISSION: how it stands, and what the scheduler's commands answered.
show_attempt() {
  attempt_state "$1"
  total=0; { read -r _ total < "$1/meta"; } 2>/dev/null
  frame say; echo "attempt $1 $attempt $total"
  [ "$attempt" = done ] || return 0
  i=0
  while { read -r code < "$1/attempt/$i.code"; } 2>/dev/null; do
    frame begin "$1.$i"; cat "$1/attempt/$i.out"
    frame end "$1.$i" "$code"; cat "$1/attempt/$i.err"
    i=$((i + 1))
  done
}
"""
)

#: Runs in a session of its own, so that it comes to its end whatever becomes of the connection.
_OWNER = f"""\
{_HERE}
read -r line < /proc/$$/stat; line=${{line##*) }}; set -- $line
echo "$here $$ ${{20}}" > "$a/owner"
"""


def attempt_input(number: int) -> str:
    """Where in the submission's sandbox a command's input lies, while it is submitted and after."""
    return f"attempt/{number}.in"


def attempt(submission: str, commands: Sequence[Command], wait_s: float) -> str:
    """Claim the one attempt and run the scheduler's commands; or, if it is claimed, wait for it. Then show it."""
    inputs = "".join(
        f"{print_data(command.stdin)} > {submission}/{attempt_input(number)}\n"
        for number, command in enumerate(commands)
    )
    run = "".join(
        f"{' '.join(quote(word) for word in command.argv)}"
        f' < "$a/{number}.in" > "$a/{number}.out" 2> "$a/{number}.err"; echo $? > "$a/{number}.code"\n'
        for number, command in enumerate(commands)
    )
    program = f"a={submission}/attempt\n{_OWNER}{run}true > $a/done\n"
    return f"""\
{_ATTEMPT_STATE}
[ -d {submission} ] || {{ frame say; echo "attempt {submission} gone 0"; frame ended; exit 0; }}
if mkdir {submission}/attempt 2>/dev/null; then
{inputs}  setsid sh -c {quote(program)} </dev/null >/dev/null 2>&1 3>&- &
  # Most schedulers answer within milliseconds.
  n=0
  while [ ! -e {submission}/attempt/done ] && [ "$n" -lt 100 ]; do n=$((n + 1)); sleep 0.005; done
fi
n=0
attempt_state {submission}
while [ "$attempt" = open ] && [ "$n" -lt {int(wait_s * 5)} ]; do
  n=$((n + 1)); sleep 0.2
  # A server may end a session that is silent for long.
  [ $((n % 5)) -ne 0 ] || {{ frame say; echo waiting; }}
  attempt_state {submission}
done
show_attempt {submission}
"""


def read_attempts(submissions: Iterable[str]) -> str:
    """Show the attempts of these submissions."""
    return _ATTEMPT_STATE + "".join(
        f"[ ! -f {submission}/meta ] || show_attempt {submission}\n" for submission in submissions
    )


def search_tag(resource: str, tag: str) -> str:
    """Show the submissions of this resource and tag: their copies that are still there, and their attempts."""
    return f"""\
{_ATTEMPT_STATE}
for m in [0-9a-z]*/meta; do
  {{ read -r name _ && IFS= read -r tag && IFS= read -r spec; }} 2>/dev/null < "$m" || continue
  [ "$name" = {quote(resource)} ] && [ "$tag" = {quote("=" + tag)} ] || continue
  s=${{m%/meta}}
  frame say; printf '%s\\n' "found $s $spec"
  for c in "$s"/[0-9]*; do [ ! -d "$c" ] || echo "copy $s ${{c##*/}}"; done
  show_attempt "$s"
done
"""


# ---------------------------------------------------------------- status


#: Whose the submission `$s` is, into `$name`; nobody's if it is a link, or is not there.
_READ_NAME: Final = 'name=; [ -h "$s" ] || { read -r name _ < "$s/meta"; } 2>/dev/null'


def unknown_submissions(resource: str, submissions: Iterable[str]) -> str:
    """Say which of these do not exist here, or are another resource's that shares the root; set `$unknown` if any is."""
    names = " ".join(submissions)
    return f"""\
unknown=
frame say
for s in {names}; do
  {_READ_NAME}
  [ "$name" = {quote(resource)} ] || {{ unknown=yes; echo "unknown $s"; }}
done
"""


#: A shell writes each line by itself, and a connection carries it by itself: thousands cost more than what they say.
_TOGETHER: Final = "together() { dd obs=65536 2>/dev/null; }"

_TELL_END: Final = (
    f"{KILLED}\n"
    + """\
# keep J LINE: writes down how a job ended; sets $ended to what is written. In one write and without a command, since there may be
# thousands; what stands there stays, and what is empty was begun by somebody who died.
keep() {
  [ ! -e "$1/ended" ] || [ -s "$1/ended" ] || rm -f "$1/ended"
  set -C; { printf '%s\\n' "$2" > "$1/ended"; } 2>/dev/null; set +C
  [ -s "$1/ended" ] || rm -f "$1/ended"
  read_ended "$1"
}
# read_ended J: sets $ended to what is written down; a line without an end is still being written.
read_ended() { { IFS= read -r ended < "$1/ended" || ended=; } 2>/dev/null; }
# tell J [LINE]: how a job ended. LINE is what the scheduler says of that; where it decides, it is written down.
tell() {
  if [ -h "$1" ] || [ ! -d "$1" ]; then echo "absent $1"; return 0; fi
  record= lost=
  read_ended "$1"
  if [ -e "$1/lost" ]; then lost=yes; else { IFS= read -r record < "$1/exit"; } 2>/dev/null; fi
  if [ -n "$2" ] && [ -z "$lost$ended" ]; then
    case $record in
      '') killed "$1" || keep "$@";;
      *" cancelled=yes "*" end"*|*" limit="[!-]*" end"*) ;;
      "code=0 "*" told=TERM "*" end"*) case $2 in '{"status":"finished-unknown",'*) ;; *) keep "$@";; esac;;
      "code=0 "*" end"*|*" told=TERM "*" end"*) case $2 in '{"status":"failed",'*|'{"status":"cancelled",'*) keep "$@";; esac;;
      *" end"*) ;;
      *) keep "$@";;
    esac
  fi
  # A payload may have written them.
  [ -z "$ended" ] || printf 'ended %s %.10000s\\n' "$1" "$ended"
  if [ -n "$record" ]; then printf 'exit %s %.1000s\\n' "$1" "$record"; return 0; fi
  cancelled=no; ! killed "$1" || cancelled=yes
  if [ -n "$ended" ]; then echo "none $1 $cancelled 0"; return 0; fi
  if [ -n "$lost" ]; then echo "none $1 $cancelled lost"; return 0; fi
  [ -n "$2" ] || [ "$cancelled" = yes ] || undecided=yes
  # What may still be on its way to the scheduler has not left the queue.
  s=${1%/*}
  if [ "$s" != "$of" ]; then attempt_state "$s"; of=$s; fi
  case $attempt in staged|open) echo "none $1 $cancelled 0"; return 0;; esac
  if [ -z "$left" ]; then echo "none $1 $cancelled 0"; return 0; fi
  if [ "$cancelled" = no ]; then
    if ! { read -r since < "$1/gone"; } 2>/dev/null; then
      since=$now
      { echo "$now" > "$1/gone"; } 2>/dev/null
    fi
    case $since in ''|*[!0-9]*) since=$now;; esac
    age=$((now - since))
    # Both ends were cut to whole seconds: it may be one less.
    if [ "$age" -le "$grace" ]; then echo "none $1 no $age"; return 0; fi
    if [ -z "$last" ]; then echo "none $1 no over"; return 0; fi
  fi
  { true > "$1/lost"; } 2>/dev/null
  # It may have been written while we looked.
  { IFS= read -r record < "$1/exit"; } 2>/dev/null
  if [ -n "$record" ]; then rm -f "$1/lost"; printf 'exit %s %.1000s\\n' "$1" "$record"; return 0; fi
  echo "none $1 $cancelled lost"
}
"""
)


def read_ends(
    jobs: Iterable[tuple[str, int]],
    grace_s: float,
    *,
    words: Mapping[tuple[str, int], str] | None = None,
    left: bool = True,
    last: bool = True,
) -> str:
    """Say how jobs ended. Sets `$undecided` if of a job neither the sandbox nor the scheduler tells.

    Args:
        jobs: Submission and copy.
        grace_s: After it a job of which nothing tells how it ended is lost.
        words: What the scheduler says of their ends: a line of JSON each, as `write_word` makes it.
        left: They are known to have left the queue: when that was seen first is written down. Otherwise nothing is.
        last: Nobody else can be asked. Otherwise no job is lost yet.
    """
    by_line: dict[str, list[tuple[str, int]]] = {}
    for job in jobs:
        by_line.setdefault((words or {}).get(job, ""), []).append(job)
    tell = "".join(
        f'for j in {_directories(told)}; do tell "$j" {quote(line)}; done\n'
        for line, told in by_line.items()
    )
    return f"""\
{_ATTEMPT_STATE}{_TELL_END}{_TOGETHER}
now=$(date +%s)
of= left={"yes" if left else ""} last={"yes" if last else ""} grace={ceil(grace_s)}
frame say
undecided=$({{ {{
undecided=
{tell}echo "$undecided" >&4
}} | together >&3; }} 4>&1)
"""


def staged_counts(resource: str) -> str:
    """Say how many copies of this resource are staged and not, or not surely, submitted."""
    return f"""\
{_ATTEMPT_STATE}
for m in [0-9a-z]*/meta; do
  {{ read -r name _; }} 2>/dev/null < "$m" && [ "$name" = {quote(resource)} ] || continue
  s=${{m%/meta}}
  [ ! -e "$s/attempt/done" ] || continue
  attempt_state "$s"
  case $attempt in done|cancelled) continue;; esac
  [ ! -e "$s/cancel" ] || continue
  n=0
  for c in "$s"/[0-9]*; do [ ! -d "$c" ] || [ -e "$c/cancel" ] || n=$((n + 1)); done
  frame say; echo "staged $s $n"
done
"""


# ---------------------------------------------------------------- kill and purge

#: Something is written down of the end of `$j`.
_HAS_ENDED: Final = '[ -e "$j/exit" ] || [ -s "$j/ended" ] || [ -e "$j/lost" ]'


def mark_killed(jobs: Iterable[tuple[str, int]]) -> str:
    """Write the marks of our kill, before the scheduler hears of it; say what needs none.

    Where all copies that are there are killed, one mark holds for the submission. It must not reach a lost one, whose status stays. A
    submission that was staged and not submitted is claimed, so that it never will be.
    """
    mark = "".join(
        f"mark {submission} {' '.join(map(str, copies))}\n"
        for submission, copies in _by_submission(jobs).items()
    )
    return f"""\
{_TOGETHER}
count() {{ there=$#; }}
mark() {{
  s=$1; shift
  here=0 live= lost=
  for c; do
    j=$s/$c
    if [ -h "$j" ] || [ ! -d "$j" ]; then echo "absent $j"; continue; fi
    here=$((here + 1))
    if {_HAS_ENDED}; then echo "ended $j"; [ ! -e "$j/lost" ] || lost=yes
    elif [ -f "$j/cancel" ] || [ -f "$s/cancel" ]; then echo "marked $j"
    else live=yes
    fi
  done
  [ -n "$live" ] || return 0
  count "$s"/[0-9]*
  if [ "$there" -eq "$here" ] && [ -z "$lost" ] && {{ true > "$s/cancel"; }} 2>/dev/null; then return 0; fi
  for c; do
    j=$s/$c
    if [ -h "$j" ] || [ ! -d "$j" ] || [ -f "$j/cancel" ] || {_HAS_ENDED}; then continue; fi
    {{ true > "$j/cancel"; }} 2>/dev/null || echo "unmarked $j"
  done
}}
frame say
{{
{mark}}} | together
for s in {_submissions(jobs)}; do
  if [ -d "$s" ] && [ ! -d "$s/attempt" ]; then
    left=
    [ -e "$s/cancel" ] || for c in "$s"/[0-9]*; do [ -e "$c/cancel" ] || left=yes; done
    [ -n "$left" ] || {{ mkdir "$s/attempt" 2>/dev/null && true > "$s/attempt/cancelled"; }}
  fi
done
"""


def purge(jobs: Iterable[tuple[str, int]], resource: str, *, ended: bool) -> str:
    """Remove the copies that have ended; say of which nothing tells that they have.

    Args:
        jobs: Submission and copy.
        resource: Whose.
        ended: It is known that they have ended, whatever the sandbox says.
    """
    condition = "true" if ended else _HAS_ENDED
    return f"""\
{_TOGETHER}
frame say
said=
# Names pass through substitutions and pipes: a list that grows by each name takes a shell the square of its length.
names=$(for j in {_directories(jobs)}; do
  s=${{j%/*}}
  {_READ_NAME}
  if [ "$name" != {quote(resource)} ]; then echo "absent $j" >&3
  elif [ -h "$j" ] || [ ! -d "$j" ]; then echo "absent $j" >&3
  elif {condition}; then echo "$j"
  else echo "unended $j" >&3
  fi
done)
if [ -n "$names" ]; then
  # The record of the end goes last: a job of which something stays is still the finished job that it was.
  beneath() {{ printf '%s\\n' "$names" | sed 's|$|/work|' | xargs "$@"; }}
  # Some rm fail over what another purge took from under them (seen with BusyBox): a moment later there is nothing to fail over. Whether
  # one fails its exit code tells: BusyBox has no word for a directory that it may not open (1.35).
  said=$(beneath rm -rf 2>&1) ||
    {{ beneath chmod -R u+rwx 2>/dev/null; said=$(beneath rm -rf 2>&1); }} ||
    {{ sleep 0.2; said=$(beneath rm -rf 2>&1); }}
  names=$(for j in $names; do
    if [ -e "$j/work" ] || [ -h "$j/work" ]; then printf '%s\\n' "stays $j $said" >&3; else echo "$j"; fi
  done)
  if [ -n "$names" ]; then
    # Of a copy half removed the marks may be gone: what stands on its directory goes with it, and says that it shall not start.
    printf '%s\\n' "$names" | xargs chmod +t 2>/dev/null
    remove() {{ printf '%s\\n' "$names" | xargs rm -rf 2>&1; }}
    said=$(remove) || {{ sleep 0.2; said=$(remove); }}
  fi
  for j in $names; do
    if [ -e "$j" ]; then printf '%s\\n' "stays $j $said"; else echo "removed $j"; fi
  done | together
  for s in {_submissions(jobs)}; do
    set -- "$s"/[0-9]*
    [ -e "$1" ] || [ -h "$s" ] || rm -rf "$s"
  done
fi
"""


# ---------------------------------------------------------------- output


#: A part of a pattern without these is a name.
_SPECIAL: Final = frozenset("*?[")
#: Whether a directory can be entered is tried: BusyBox thinks that root cannot enter one that nobody may (1.35).
_LOOK: Final = (
    "  look() {",
    "    rights=$1; shift",
    "    for d; do",
    '      [ ! -d "$d" ] || { [ -e "$d/." ] && { [ "$rights" = x ] || [ -r "$d" ]; }; } ||',
    '        unread "$d: this directory may not be opened"',
    "    done",
    "  }",
)


def select_function(spec: SubmissionSpec, variants: Iterable[CopyVars]) -> str:
    """The shell function `select_output WORK`, which prints the names of a copy's output, each with a NUL.

    `WORK` is a path without special characters. Secrets are never among them; inputs and the executable not among `everything`. A link
    on the way to a file is printed in its place, so that it is seen and refused. Where not all can be read it calls `unread`, once or
    more, with words that name the first: what lies beneath a closed directory has no name.
    """
    secrets = sorted({name for variant in variants for name in variant.secrets})
    lines = [
        "select_output() {",
        "  w=$1",
        "  keep() {",
        "    for f; do",
        '      [ -f "$f" ] || [ -h "$f" ] || { [ -e "$f" ] && [ ! -d "$f" ]; } || continue',
    ]
    if secrets:
        cases = "|".join(f'"$w"/{quote(name)}' for name in secrets)
        lines.append(f"      case $f in {cases}) continue;; esac")
    if any("/" in member.pattern for member in spec.outputs.members):
        lines += [
            "      p=${f%/*}",
            '      while [ "$p" != "$w" ]; do [ ! -h "$p" ] || f=$p; p=${p%/*}; done',
        ]
    lines += [
        "      printf '%s\\0' \"$f\"",
        '      [ -r "$f" ] || [ -h "$f" ] || unread ""',
        "    done",
        "  }",
        '  find_names() { words=$(find "$@" ! -type d -print0 2>&1 >&5) || unread "$words"; } 5>&1',
        "  tree() {",
        "    p=$1",
        '    while [ "$p" != "$w" ]; do [ ! -h "$p" ] || { printf \'%s\\0\' "$p"; return; }; p=${p%/*}; done',
        f'    [ ! -d "$1" ] || find_names "$1" {_pruned(secrets)}',
        "  }",
    ]
    if spec.outputs.everything:
        # What lies in inputs/ by the same name was staged; all else the payload made, also beneath a directory that was.
        lines += [
            f'  find_names "$w" {_pruned(secrets)} | xargs -0 sh -c \'',
            "    inputs=$1 w=$2; shift 2",
            "    for f; do",
            '      [ ! -e "$inputs/${f#"$w"/}" ] || continue',
            '      printf "%s\\0" "$f"',
            '      [ -r "$f" ] || [ -h "$f" ] || printf "%s\\0" "$w"',
            "    done",
            '  \' sh "${w%/*/work}/inputs" "$w"',
        ]
    else:
        patterns = [member.pattern for member in spec.outputs.members]
        lines += _look_above(patterns)
        lines += map(_select_member, patterns)
    lines.append("}")
    return "\n".join(lines) + "\n"


def _look_above(patterns: Iterable[str]) -> list[str]:
    """Lines that call `unread` where a directory is closed in which something is wanted: what a pattern does not see nobody would miss."""
    looks: dict[str, None] = {}
    for pattern in patterns:
        parts = pattern.removesuffix("/").split("/")
        for depth in range(1, len(parts)):
            rights = "x" if _SPECIAL.isdisjoint(parts[depth]) else "rx"
            looks[f'  look {rights} "$w"/{quote_pattern("/".join(parts[:depth]))}'] = None
    return [*_LOOK, *looks] if looks else []


def _select_member(pattern: str) -> str:
    if pattern.endswith("/"):
        return f'  for t in "$w"/{quote_pattern(pattern[:-1])}; do tree "$t"; done'
    return f'  keep "$w"/{quote_pattern(pattern)}'


def _pruned(names: Sequence[str]) -> str:
    """find's expression that leaves out these paths and all beneath them."""
    if not names:
        return ""
    paths = " -o ".join(f'-path "$w"/{quote(_find_literal(name))}' for name in names)
    return f"\\( {paths} \\) -prune -o "


def _find_literal(name: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in name)


def stream_output(jobs: Sequence[tuple[str, int]], resource: str, *, ended: bool, pack: str) -> str:
    """Say what was declared; then one stream with the output of the jobs that are ready; then the others, and tar's words.

    Each job's members end with its directory: a job whose directory has come is complete.

    Args:
        jobs: Submission and copy.
        resource: Whose.
        ended: As for `purge`.
        pack: Sends the files whose names come on its input, each with a NUL, in shell.
    """
    condition = '[ -d "$j" ]' if ended else _HAS_ENDED
    copies = _by_submission(jobs)
    lists = "".join(f"list {name} {' '.join(map(str, of))}\n" for name, of in copies.items())
    return f"""\
declared() {{
  name= spec=
  [ -h "$s" ] || {{ read -r name _ && IFS= read -r _ && IFS= read -r spec; }} 2>/dev/null < "$s/meta"
  [ "$name" != {quote(resource)} ] || printf '%s\\n' "meta $s $spec"
}}
# unread WORDS: says in the archive, by the job's work/, that not all of the job can be read, and behind it the first of the words. A
# name may hold a newline, so one line stands here for all.
unread() {{
  printf '%s\\0' "$j/work"
  [ -z "$1" ] || printf 'unread %.1000s\\n' "${{1%%
*}}" >&4
}}
list() {{
  s=$1; shift
  {_READ_NAME}
  [ "$name" = {quote(resource)} ] || {{ for c; do echo "absent $s/$c" >&4; done; return; }}
  select_output() {{ :; }}
  [ ! -f "$s/select" ] || . "./$s/select"
  for c; do
    j=$s/$c
    if [ ! -h "$j" ] && {{ {condition}; }}; then
      for f in "$j/stdout" "$j/stderr" "$j/log"; do [ ! -f "$f" ] || printf '%s\\0' "$f"; done
      [ ! -d "$j/work" ] || [ -h "$j/work" ] || select_output "$j/work"
      printf '%s\\0' "$j"
    elif [ ! -h "$j" ] && [ -d "$j" ]; then echo "unended $j" >&4
    else echo "absent $j" >&4
    fi
  done
}}
frame say
for s in {" ".join(copies)}; do declared; done
frame tar
said=$({{
  others=$({{ {{
{lists}  }} | {{
    {pack}
    echo "code $?" >&2
  }} >&3 4>&-; }} 4>&1)
  {{ frame others; printf '%s\\n' "$others"; }} >&3
}} 2>&1)
frame tar-ended
printf '%s\\n' "$said"
"""


def lines_after(lines: Iterable[str], prefix: str) -> set[str]:
    """What such a script said of some jobs: the rest of the lines that begin so."""
    return {line[len(prefix) :] for line in lines if line.startswith(prefix)}


def tails(jobs: Iterable[tuple[str, int]], size: int) -> str:
    """Show the last bytes of each stream, one more than asked for where there are more."""
    return f"""\
for j in {_directories(jobs)}; do
  if [ -h "$j" ] || [ ! -d "$j" ]; then frame say; echo "absent $j"; continue; fi
  for f in stdout stderr log; do
    if [ -f "$j/$f" ] && [ ! -h "$j/$f" ]; then
      frame begin "$j/$f"; tail -c {size + 1} "$j/$f"; frame end "$j/$f" 0
    fi
  done
done
"""


def _directories(jobs: Iterable[tuple[str, int]]) -> str:
    return " ".join(f"{submission}/{copy}" for submission, copy in jobs)


def _by_submission(jobs: Iterable[tuple[str, int]]) -> Mapping[str, Sequence[int]]:
    found: dict[str, list[int]] = {}
    for submission, copy in jobs:
        found.setdefault(submission, []).append(copy)
    return found


def _submissions(jobs: Iterable[tuple[str, int]]) -> str:
    return " ".join(dict.fromkeys(submission for submission, _ in jobs))
