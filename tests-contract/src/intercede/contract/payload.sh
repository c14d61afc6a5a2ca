#!/bin/sh
# The payload of the contract suite: its arguments are verbs, done in order; at their end it exits with 0.
# A verb that fails ends it with 1, one that is not known with 64. POSIX sh only; seen to work in dash, bash and busybox.
#
#   echo TEXT         TEXT and a newline on stdout         err TEXT          likewise on stderr
#   args A B ...      every remaining argument and a NUL   env NAME          "=VALUE" or "unset", and a NUL
#   write FILE TEXT   just TEXT; parents are made          fill FILE BYTES   so many zero bytes; parents are made
#   many DIR COUNT    DIR/f0 ..., each its own number      cat FILE          its bytes
#   mode FILE         its permission in octal              ls                all names beneath here, sorted by bytes
#   sleep SECONDS                                          exit CODE
#   signal NUMBER     ends itself by that signal           trap              ignores TERM from now on
#   symlink NAME TARGET, hardlink NAME TARGET, fifo NAME
#   shut NAME         takes all rights to it away
#   spawn SECONDS     leaves a child behind that sleeps so long, in a session of its own
set -e

fail() {
    printf 'payload: %s\n' "$1" >&2
    exit 64
}

# A name that could be taken for an option is spelt with its directory.
plain() {
    case $1 in
    /*) path=$1 ;;
    *) path=./$1 ;;
    esac
}

with_parents() {
    plain "$1"
    mkdir -p "${path%/*}/"
}

zeros() {
    blocks=$(($1 / 65536))
    rest=$(($1 % 65536))
    if [ "$blocks" -gt 0 ]; then dd if=/dev/zero bs=65536 count="$blocks" 2>/dev/null; fi
    if [ "$rest" -gt 0 ]; then dd if=/dev/zero bs="$rest" count=1 2>/dev/null; fi
}

# "-rw-r--r--" is 644; there is no portable command that says so.
octal() {
    plain "$1"
    ls -ld "$path" | head -n 1 | cut -c 2-10 | sed -e 's/[^-]/1/g' -e 's/-/0/g' -e 's/.../& /g' \
        -e 's/000 /0/g' -e 's/001 /1/g' -e 's/010 /2/g' -e 's/011 /3/g' \
        -e 's/100 /4/g' -e 's/101 /5/g' -e 's/110 /6/g' -e 's/111 /7/g'
}

variable() {
    case $1 in
    '' | [0-9]* | *[!A-Za-z0-9_]*) fail "not a variable: $1" ;;
    esac
    if eval "[ -n \"\${$1+set}\" ]"; then
        eval "printf '=%s\\0' \"\$$1\""
    else
        printf 'unset\0'
    fi
}

while [ $# -gt 0 ]; do
    verb=$1
    shift
    case $verb in
    args)
        for argument in "$@"; do printf '%s\0' "$argument"; done
        exit 0
        ;;
    ls)
        find . ! -name . | sed 's|^\./||' | LC_ALL=C sort
        continue
        ;;
    trap)
        trap '' TERM
        continue
        ;;
    esac
    [ $# -gt 0 ] || fail "$verb: operand missing"
    first=$1
    shift
    case $verb in
    echo) printf '%s\n' "$first" ;;
    err) printf '%s\n' "$first" >&2 ;;
    env) variable "$first" ;;
    cat) cat <"$first" ;;
    mode) octal "$first" ;;
    sleep) sleep "$first" ;;
    exit) exit "$first" ;;
    signal) kill -"$first" $$ ;;
    fifo)
        plain "$first"
        mkfifo "$path"
        ;;
    shut)
        plain "$first"
        chmod 0 "$path"
        ;;
    spawn) setsid sleep "$first" </dev/null >/dev/null 2>&1 & ;;
    write | fill | many | symlink | hardlink)
        [ $# -gt 0 ] || fail "$verb: operand missing"
        second=$1
        shift
        case $verb in
        write)
            with_parents "$first"
            printf '%s' "$second" >"$path"
            ;;
        fill)
            with_parents "$first"
            zeros "$second" >"$path"
            ;;
        many)
            with_parents "$first/f"
            number=0
            while [ "$number" -lt "$second" ]; do
                printf '%s\n' "$number" >"${path%/f}/f$number"
                number=$((number + 1))
            done
            ;;
        symlink)
            plain "$first"
            ln -s -- "$second" "$path"
            ;;
        hardlink)
            plain "$first"
            name=$path
            plain "$second"
            ln "$path" "$name"
            ;;
        esac
        ;;
    *) fail "unknown verb: $verb" ;;
    esac
done
