"""What is run on the host: one POSIX shell program per question, around Slurm's own commands.

Constant texts; what varies comes as arguments and on standard input. They need the usual POSIX tools there, beside Slurm.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HISTORY", "KILL", "LIST", "NAME", "NATIVE", "PRELUDE", "PROBE", "STATUS"]

#: What a job is called: this and its submission.
NAME: Final = "intercede-"
#: An id: a job's, or that of an element of an array.
NATIVE: Final = r"[1-9][0-9]{0,9}(?:_[0-9]{1,7})?"

#: Begins every program.
PRELUDE: Final = r"""
# With the environment of a profile Slurm's commands do and print something else: SBATCH_*, SQUEUE_*, SACCT_*, SLURM_* and many more.
clean() {
  env -i ${PATH:+PATH="$PATH"} ${HOME:+HOME="$HOME"} ${USER:+USER="$USER"} ${LOGNAME:+LOGNAME="$LOGNAME"} \
    ${SHELL:+SHELL="$SHELL"} ${TMPDIR:+TMPDIR="$TMPDIR"} ${LD_LIBRARY_PATH:+LD_LIBRARY_PATH="$LD_LIBRARY_PATH"} \
    ${SLURM_CONF:+SLURM_CONF="$SLURM_CONF"} "$@"
}
# Times as seconds since 1970, whatever the zone (seen of squeue and sacct on all four versions).
ask() { clean LC_ALL=C TZ=UTC SLURM_TIME_FORMAT=%s "$@" </dev/null; }
nonce=; { read -r nonce < /proc/sys/kernel/random/uuid; } 2>/dev/null
nonce=${nonce:-$$.$(date +%s)}
row() { printf '%s' "$nonce"; printf '|%s' "$@"; printf '|%s\n' "$nonce"; }
printf 'slurm %s\n' "$nonce"
"""

#: Arguments: none. The configuration and the partitions are asked for in one command, which reads its requests (all four versions).
PROBE: Final = (
    PRELUDE
    + r"""
config=$(printf 'show config\nshow partitions\n' | clean LC_ALL=C TZ=UTC scontrol -a -o)
code=$?
printf '%s\n' "$config"
row end scontrol $code
conf=$(printf '%s\n' "$config" | sed -n 's/^SLURM_CONF *= *//p')
[ ! -e "${conf%/*}/oci.conf" ] || row oci "${conf%/*}/oci.conf"
ask sinfo -a -e -o "$nonce|%R|%c|%m|%G|%D|$nonce"
row end sinfo $?
"""
)

#: What is asked for comes on standard input: `:SUBMISSION`, and below it the native ids of its jobs, one per line. `$1` of squeue's rows is
#: the nonce, `$2` the id, `$3` the name.
_KNOWN: Final = r"""
  !told && $0 == n { told = 1; next }
  !told && /^:/ { name = "NAME" substr($0, 2); next }
  !told { asked[$0] = name; next }
""".replace("NAME", NAME)

#: All jobs of the account are asked for in one command, however many there are, and also those that ended lately; what was not asked
#: for is left out here. An id that is unknown is just not there, where `squeue -j` with this id alone fails. Of a job that is COMPLETING
#: `%e` is when the payload ended (22.05, 24.11, 26.05; 20.11 was not caught at it). Without `-t` squeue shows suspended jobs too.
#:
#: Without `-r` the elements of an array that have not begun and do not differ are one row, `3_[0-4,7%2]`: the same ones that `-r` shows, one
#: by one (all four versions), and of thousands that much less to read. squeue would cut that row (26.05: the id after 31 characters).
#:
#: What is asked for comes on standard input, one id per line: of a job, of an array's element, or of an array, which means all of it.
STATUS: Final = (
    PRELUDE
    + r"""
{
  cat
  printf '%s\n' "$nonce"
  ask SLURM_BITSTR_LEN=0 squeue --me -t all -o "$nonce|%i|%j|%T|%r|%V|%S|%e|%N|$nonce"
  row end squeue $?
} | awk -F'|' -v n="$nonce" '
  !told && $0 == n { told = 1; next }
  !told { asked[$0]; sub(/_.*/, ""); arrays[$0]; next }
  $1 != n { next }
  $2 == "JOBID" || $2 == "end" || $2 in asked { print; next }
  { array = $2; sub(/_.*/, "", array) }
  array in asked || (array in arrays && $2 ~ /\[/)
'
"""
)

#: `scancel` by name would spare the first question. But with a filter, scancel of 20.11 and 22.05 takes a whole pending array for any of
#: its elements: `scancel --name=X 3_[1-2]` was seen to cancel 3_0 to 3_4. Without one it could end a job that got the id of ours since.
KILL: Final = (
    PRELUDE
    + r"""
ids=$(
  {
    cat
    printf '%s\n' "$nonce"
    ask squeue --me -r -o "$nonce|%i|%j|$nonce"
    row end squeue $?
  } | awk -F'|' -v n="$nonce" '"""
    + _KNOWN
    + r"""
    $1 != n || $NF != n { next }
    $2 == "end" { ended = $4 == "0"; next }
    NF == 4 && $2 in asked && asked[$2] == $3 {
      if (split($2, part, "_") == 1) { print $2; next }
      task[part[1], part[2]]
      if (!(part[1] in last) || part[2] + 0 > last[part[1]]) last[part[1]] = part[2] + 0
    }
    END {
      if (!ended) exit 1
      for (array in last) {
        words = ""
        for (i = 0; i <= last[array]; i++) {
          if (!((array, i) in task)) continue
          for (j = i; (array, j + 1) in task; j++) continue
          words = words (words == "" ? "" : ",") (j > i ? i "-" j : i)
          i = j
        }
        print array "_[" words "]"
      }
    }
  '
)
row end squeue $?
[ -z "$ids" ] || printf '%s\n' "$ids" | clean LC_ALL=C TZ=UTC xargs scancel
row end scancel $?
"""
)

#: Argument: what the marks begin with.
LIST: Final = (
    PRELUDE
    + r"""
{
  ask squeue --me -r -t all -o "$nonce|%i|%k|%j|%T|%r|$nonce"
  row end squeue $?
} | awk -F'|' -v n="$nonce" -v mark="$1" '$1 == n && ($2 == "JOBID" || $2 == "end" || index($3, mark) == 1)'
"""
)

#: Argument: from when on. sacct takes long lists, but no command line does.
HISTORY: Final = (
    PRELUDE
    + r"""
ids=$(cat)
lists=$(printf '%s\n' "$ids" | awk '
  /^:/ { next }
  { sub(/_.*/, "") }
  !($0 in seen) { seen[$0]; printf "%s%s", (n % 1000 ? "," : n ? "\n" : ""), $0; n++ }
')
{
  printf '%s\n%s\n' "$ids" "$nonce"
  for list in $lists; do
    ask sacct -X -p -D -S "$1" -j "$list" --delimiter="|$nonce|" --format=JobID,JobName,State,Start,End,NodeList
    row end sacct $?
  done
} | awk -F'|' -v n="$nonce" '"""
    + _KNOWN
    + r"""  ($1 == n && $2 == "end") || ($2 == n && ($1 == "JobID" || $1 in asked))
'
"""
)
