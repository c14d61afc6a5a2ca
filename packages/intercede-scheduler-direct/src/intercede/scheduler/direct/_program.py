"""What direct says to a host: one shell program with a verb for each call.

There is no daemon. Per host, beneath the sandbox root:

    .direct/<host>/limit       how many copies may run at once
    .direct/<host>/slots/<k>   held (flock) by the worker of slot k and by the runner it started, never by a payload; names the worker
                               and its copy
    .direct/<host>/gate        held while a copy is chosen, so that it is chosen once and never after its cancel mark
    .direct/<host>/queue/<s>   a submission with copies that have not been chosen: mark, runner, wall time, ranges of copies,
                               PATH and locale of who submitted it
    .direct/<host>/active/<s>  one without
    .direct/<host>/next/<s>    where to look for the next copy
    <s>/<copy>/slot            who chose it: slot, host, boot, worker's process and start time

A worker takes a free slot, chooses a copy, starts one more worker if it is the first time, runs the copy, and chooses again until the
queue is empty. So waiting copies start without us; and since the kernel drops the locks of the dead, a worker that died leaves nothing
behind that could block: the next call that meets a waiting copy starts a worker again.

A process is known by its number, its start time and the boot of the host; a job's processes by a marker in their environment, and by
descent from one that has it.
"""

from __future__ import annotations

from typing import Final

from intercede.toolkit import KILLED, MARKER

__all__ = ["PROGRAM"]

PROGRAM: Final = r"""
host=$(uname -n)
d=.direct/$host
boot=-; { read -r boot < /proc/sys/kernel/random/boot_id; } 2>/dev/null

# born PID: sets $born to the process's start time; fails if it is gone or a zombie.
born() {
  { read -r line < "/proc/$1/stat"; } 2>/dev/null || return 1
  line=${line##*) }
  set -- $line
  [ "$1" != Z ] || return 1
  shift 19
  born=$1
}

alive() { [ -n "$2" ] && born "$1" && [ "$born" = "$2" ]; }

KILLED

# barred COPY: it is not to start: our kill was here, or a purge is at it, which sets the sticky bit first.
barred() { [ -k "$1" ] || killed "$1"; }

# look COPY: sets $state of the copy in that directory: waiting, running, elsewhere, orphaned, unstarted, gone.
look() {
  state=gone
  [ -d "$1" ] && [ ! -e "$1/exit" ] || return 0
  if [ -e "$1/slot" ]; then
    since=; { read -r slot where when pid since < "$1/slot"; } 2>/dev/null
    if [ -z "$since" ]; then
      # Its worker is writing this, or died while it did.
      state=unstarted
    elif [ "$where" != "$host" ]; then state=elsewhere; return 0
    elif [ "$when" != "$boot" ]; then return 0
    elif { read -r _ _ runner_pid runner_born _ < "$1/start"; } 2>/dev/null; then
      if alive "$runner_pid" "$runner_born"; then state=running; else state=orphaned; fi
    elif alive "$pid" "$since" && { read -r _ _ current < "$d/slots/$slot"; } 2>/dev/null && [ "$current" = "$1" ]; then
      # The worker has chosen it, and its runner has not written down who it is.
      state=running
    else state=unstarted
    fi
    # It may have ended while we looked.
    [ ! -e "$1/exit" ] || state=gone
  elif ! barred "$1"; then state=waiting
  fi
}

# recover SUBMISSION COPY: of an unstarted copy, find out whether its worker died between choosing and starting it; if so, let it be
# chosen again. Sets $state.
recover() {
  exec 8>"$d/gate"; flock 8
  slot= pid= since= holder=; { read -r slot _ _ pid since < "$1/$2/slot"; } 2>/dev/null
  { IFS= read -r holder < "$d/slots/$slot"; } 2>/dev/null
  held=
  case $holder in
    "$pid $since $1/$2") held=yes;;
    # A full disk may have kept its worker from saying so.
    '') ! alive "$pid" "$since" || held=yes;;
    # Its worker has gone on, or another one has the slot.
  esac
  if [ -e "$1/$2/start" ] || { [ -n "$held" ] && ! flock -n "$d/slots/$slot" true; }; then
    state=running
  elif [ -e "$1/$2/started" ]; then
    state=orphaned
  else
    rm -f "$1/$2/slot" "$d/next/$1"
    mv "$d/active/$1" "$d/queue/$1" 2>/dev/null
    state=waiting
    ! barred "$1/$2" || state=gone
  fi
  exec 8>&-
}

# Starts a worker that outlives us. It must not carry the marker of a job that we may be part of.
spawn() {
  ( unset MARKER; exec setsid sh -c 'code=$1; shift; eval "$code"' direct "$code" work \
      </dev/null >/dev/null 2>&1 3>&- 8>&- 9>&- & )
}

# Starts a worker if a slot looks free and something waits. It takes the lock itself, so that looking wrong does no harm.
# In a subshell, since a worker has its own $k.
wake() (
  set -- "$d"/queue/*
  [ -e "$1" ] && { read -r limit < "$d/limit"; } 2>/dev/null || return 0
  k=1
  while [ "$k" -le "$limit" ]; do
    pid=; { read -r pid since < "$d/slots/$k"; } 2>/dev/null
    if [ -z "$pid" ] || ! alive "$pid" "$since"; then spawn; return 0; fi
    k=$((k + 1))
  done
)

# Chooses the next copy: sets $sub, $copy, $runner, $wall, $path, $locale. Fails if none waits.
choose() {
  exec 8>"$d/gate"; flock 8
  for q in "$d"/queue/*; do
    [ -f "$q" ] || continue
    sub=${q##*/}
    { read -r _ && read -r runner && read -r wall && read -r ranges && IFS= read -r path && IFS= read -r locale; } < "$q" || continue
    from=; { read -r from < "$d/next/$sub"; } 2>/dev/null
    case $from in ''|*[!0-9]*) from=0;; esac
    for range in $ranges; do
      copy=${range%-*}
      [ "$copy" -ge "$from" ] || copy=$from
      while [ "$copy" -le "${range#*-}" ]; do
        c=$sub/$copy
        if [ -d "$c" ] && [ ! -e "$c/slot" ] && ! barred "$c" && [ ! -e "$c/exit" ]; then
          if ! echo "$k $host $boot $$ $me" > "$c/slot"; then
            # The disk is full; the next call tries again.
            rm -f "$c/slot"
            stuck=yes
            exec 8>&-
            return 1
          fi
          echo "$$ $me $c" > "$d/slots/$k"
          echo $((copy + 1)) > "$d/next/$sub"
          exec 8>&-
          return 0
        fi
        copy=$((copy + 1))
      done
    done
    mv "$q" "$d/active/$sub"
  done
  exec 8>&-
  return 1
}

# Runs the chosen copy, within its wall time.
run_copy() {
  watch=
  if [ "$wall" != - ]; then
    (
      exec 9>&-
      trap 'kill "$nap" 2>/dev/null; exit 0' TERM
      sleep "$wall" & nap=$!
      wait "$nap"
      trap - TERM
      true > "$sub/$copy/limit"
      end_jobs "$sub $copy"
    ) & watch=$!
  fi
  # The worker may be somebody else's: a job gets the PATH and locale of who submitted it, and nothing of an environment that may hold
  # secrets.
  env -i HOME="$HOME" PATH="$path" ${USER:+USER="$USER"} ${LOGNAME:+LOGNAME="$LOGNAME"} ${SHELL:+SHELL="$SHELL"} \
    ${TMPDIR:+TMPDIR="$TMPDIR"} ${TZ:+TZ="$TZ"} ${locale:+LANG="$locale"} sh "$runner" "$copy"
  [ -z "$watch" ] || { kill "$watch" 2>/dev/null; wait "$watch"; }
}

work() {
  { read -r limit < "$d/limit"; } 2>/dev/null || return 0
  born $$ || return 0
  me=$born stuck=
  k=1
  while [ "$k" -le "$limit" ]; do
    exec 9>>"$d/slots/$k"
    if flock -n 9; then
      echo "$$ $me" > "$d/slots/$k"
      first=yes
      while choose; do
        [ -z "$first" ] || { first=; wake; }
        run_copy
      done
      true > "$d/slots/$k"
      exec 9>&-
      # What was queued after we found nothing and before we let go would otherwise wait for the next call.
      set -- "$d"/queue/*
      [ -e "$1" ] && [ -z "$stuck" ] || return 0
    else
      k=$((k + 1))
    fi
  done
}

# processes JOBS: the processes of the jobs (lines "submission copy") and their descendants, zombies left out.
processes() {
  {
    printf '%s\n' "$1"
    echo --
    grep -aos 'MARKER=[^;]*;' /proc/[0-9]*/environ
    cat /proc/[0-9]*/stat 2>/dev/null
  } | awk '
    !listed && $0 == "--" { listed = 1; next }
    !listed { wanted[$1 "." $2] = 1; next }
    /^\/proc\// {
      split($0, part, "/"); split($0, value, "MARKER="); sub(/;.*/, "", value[2])
      if (value[2] in wanted) found[part[3]] = 1
      next
    }
    /^[0-9]+ \(.*\) [A-Za-z] [0-9]+ / {
      pid = $1; sub(/^.*\) /, ""); state[pid] = $1; parent[pid] = $2
    }
    END {
      do {
        grown = 0
        for (pid in parent) if (!(pid in found) && parent[pid] in found) { found[pid] = 1; grown = 1 }
      } while (grown)
      for (pid in found) if (state[pid] != "Z") print pid
    }'
}

# Copies of JOBS that have not ended yet: their runner may be about to start the payload, or to write down its end.
unsettled() {
  printf '%s\n' "$1" | while read -r s c; do
    look "$s/$c"
    [ "$state" != unstarted ] || recover "$s" "$c"
    case $state in running) echo "$s/$c";; esac
  done
}

# end_jobs JOBS: TERM, then, after the grace, STOP and KILL, again and again until none is left.
end_jobs() {
  round=0 told=' '
  while [ "$round" -lt $((kill_grace * 10 + 100)) ]; do
    found=$(processes "$1")
    if [ -z "$found" ]; then
      [ -n "$(unsettled "$1")" ] || return 0
    elif [ "$round" -ge $((kill_grace * 10)) ]; then
      kill -STOP $found 2>/dev/null
      kill -KILL $(processes "$1") 2>/dev/null
    else
      for pid in $found; do
        case $told in *" $pid "*) continue;; esac
        kill -TERM "$pid" 2>/dev/null
        told="$told$pid "
      done
    fi
    sleep 0.1
    round=$((round + 1))
    # A server may end a session that is silent for long.
    [ $((round % 10)) -ne 0 ] || echo ending
  done
}

kill_grace=2
echo direct
verb=$1; shift
case $verb in
probe)
  for tool in flock setsid awk grep cat mv rm mkdir sleep; do
    command -v "$tool" >/dev/null || echo "lacks $tool"
  done
  echo "cores $(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
  while read -r name value _; do
    [ "$name" != MemTotal: ] || echo "memory_mb $((value / 1024))"
  done < /proc/meminfo
  echo "host $host"
  ;;
submit) # SUBMISSION MARK RUNNER WALL LIMIT RANGES
  if mkdir -p "$d/slots" "$d/queue" "$d/active" "$d/next" \
      && echo "$5" > "$d/limit.$1" && mv "$d/limit.$1" "$d/limit" \
      && { [ -e "$d/queue/$1" ] || [ -e "$d/active/$1" ] \
        || { printf '%s\n' "$2" "$3" "$4" "$6" "$PATH" "${INTERCEDE_LOCALE:-}" > "$d/queue.$1" && mv "$d/queue.$1" "$d/queue/$1"; }; }
  then
    wake
    echo "queued $1"
    # Of submissions that were purged since, nothing else would take this away.
    for q in "$d"/active/*; do [ -d "${q##*/}" ] || rm -f "$q" "$d/next/${q##*/}"; done
  else
    rm -f "$d/limit.$1" "$d/queue.$1"
  fi
  ;;
status) # lines: SUBMISSION COPY
  waits= orphans=
  while read -r s c; do
    look "$s/$c"
    [ "$state" != unstarted ] || recover "$s" "$c"
    case $state in
      waiting) waits=yes; echo "$s.$c PENDING";;
      running) echo "$s.$c RUNNING";;
      elsewhere) echo "$s.$c ELSEWHERE $where";;
      orphaned) orphans="$orphans$s $c
";;
    esac
  done
  if [ -n "$orphans" ]; then
    # The runner is dead; its payload may not be.
    printf '%s' "$orphans" | while read -r s c; do
      [ -z "$(processes "$s $c")" ] || echo "$s.$c RUNNING"
    done
  fi
  [ -z "$waits" ] || wake
  ;;
kill) # lines: SUBMISSION COPY
  jobs=$(cat)
  # Whoever was choosing a copy has chosen now, and whoever chooses later sees the cancel marks.
  if [ -d "$d" ]; then exec 8>"$d/gate"; flock 8; exec 8>&-; fi
  end_jobs "$jobs"
  ;;
list) # MARK-PREFIX
  for q in "$d"/queue/* "$d"/active/*; do
    [ -f "$q" ] && { read -r mark && read -r _ && read -r _ && read -r ranges; } < "$q" || continue
    case $mark in "$1"*) ;; *) continue;; esac
    s=${q##*/} left=
    for range in $ranges; do
      c=${range%-*}
      while [ "$c" -le "${range#*-}" ]; do
        look "$s/$c"
        [ "$state" != unstarted ] || recover "$s" "$c"
        [ "$state" != orphaned ] || [ -n "$(processes "$s $c")" ] || state=gone
        case $state in
          gone) ;;
          waiting) left=yes; echo "$s.$c $mark PENDING";;
          *) left=yes; echo "$s.$c $mark RUNNING";;
        esac
        c=$((c + 1))
      done
    done
    if [ -z "$left" ]; then
      exec 8>"$d/gate"; flock 8
      rm -f "$d/active/$s" "$d/queue/$s" "$d/next/$s"
      exec 8>&-
    fi
  done
  wake
  ;;
work) work;;
esac
echo end
""".replace("MARKER", MARKER).replace("KILLED", KILLED)
