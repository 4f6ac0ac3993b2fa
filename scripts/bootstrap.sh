#!/bin/sh
# bootstrap.sh [voice] [cuda] [dev]: make .venv at the repo root and install the locked requirements; `voice` adds what the
# roles audio and voice need, `cuda` what keeps pictures on an NVIDIA GPU, `dev` voice and what the tests need. What was
# installed once is kept, and kept up to date, whatever is asked for later.
#
# With nothing to do it costs milliseconds. It may be killed at any point: .venv/stamp says "unfinished" from the first
# change on and is written last, so the next run makes anew whatever was left half made. What is added to a finished .venv
# is downloaded before the first change, so a download that is broken off leaves all as it was.
set -eu
unset CDPATH  # or cd might go elsewhere, and print where

say() { echo "bootstrap: $*" >&2; }
stop() { say "$*"; exit 2; }

for word; do
    case $word in
        voice | cuda | dev) ;;
        *) stop "unknown argument: $word. Usage: scripts/bootstrap.sh [voice] [cuda] [dev]" ;;
    esac
done
root=$(dirname -- "$0")/..
cd "$root" && root=$(pwd -P)

# Sets `locks` to what is to be in .venv, each whole in itself and in agreement with the others, and `had` to those of them
# that the stamp names, also one that says "unfinished". (What is behind a link is another checkout's.)
choose() {
    wanted=" $* " stamp='' had='' locks=requirements.txt
    [ -L .venv ] || stamp=$(cat .venv/stamp 2>/dev/null) || true
    for extra in voice cuda dev; do
        case $stamp in *"requirements-$extra.txt"*) had="$had requirements-$extra.txt" wanted="$wanted$extra " ;; esac
    done
    case $wanted in *' dev '*) wanted="$wanted voice " ;; esac
    for extra in voice cuda dev; do
        case $wanted in *" $extra "*) locks="$locks requirements-$extra.txt" ;; esac
    done
}

write_stamp() {
    cat >.venv/stamp.new
    mv .venv/stamp.new .venv/stamp
}

# A venv holds absolute paths, so it is good for one checkout and one interpreter only. "2": what is done to it here.
place() { echo "2 $root $(readlink -f .venv/bin/python)"; }

in_place() { [ -x .venv/bin/python ] && [ -f .venv/stamp ] && grep -qxF "$(place)" .venv/stamp; }

finished() {
    in_place || return 1
    for lock in $locks; do grep -qxF "$(cksum "$lock")" .venv/stamp || return 1; done
}

# Whoever broke off `make up CUDA=1` is told by the next run, which does not begin it again unasked: a suite may be waiting.
tell_of_broken_off() {
    [ ! -L .venv ] && [ -e .venv/cuda-begun ] || return 0
    case $wanted in *' cuda '*) ;; *) say "CUDA=1 was not finished: make up CUDA=1 does it" ;; esac
    rm -rf .venv/cuda-begun .venv/download
}

unfinished() { echo "unfinished:$had" | write_stamp; }

# A venv that somebody made by hand has no stamp; it serves if it is new enough and has pip.
made_by_hand() {
    [ -x .venv/bin/python ] && [ ! -e .venv/stamp ] &&
        .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    python=$(find_python) || stop "no Python 3.11 or newer found: install one (Debian: apt-get install python3-venv)" \
        "or name it: PYTHON=/path/to/python3 scripts/bootstrap.sh $*"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        stop "$python lacks the venv module: apt-get install python3-venv (Debian), or name another one with PYTHON=..."
    say "making .venv with $("$python" -V)"
    [ -d .venv ] && [ ! -L .venv ] || rm -f .venv  # a link to another checkout's: that one stays as it is
    mkdir -p .venv
    unfinished
    # bin first: without it nobody takes what a kill leaves here for a venv. The folder itself may be a mount point.
    for each in .venv/bin .venv/* .venv/.[!.]*; do
        [ "$each" = .venv/stamp ] || rm -rf "$each" 2>/dev/null || true
    done
    "$python" -m venv .venv || stop "$python could not make .venv (see above): mend that, or name another: PYTHON=..."
    has_quick_pip || renew_pip
}

# Older ones take twice as long to choose where the locks leave no choice: 64 s of a processor for `dev`, not 39.
has_quick_pip() { .venv/bin/python -c 'import sys, pip; sys.exit(int(pip.__version__.split(".")[0]) < 24)'; }

# Where that one can't be had, the old one does.
renew_pip() {
    echo 'pip==26.3 --hash=sha256:f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13' |
        pip install -qq --retries 0 -r /dev/stdin 2>/dev/null || true
}

has_nvidia_driver() {
    [ -e /dev/nvidiactl ] || PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -qF 'libcuda.so.1 '
}

pip() {
    verb=$1
    shift
    .venv/bin/python -m pip "$verb" --progress-bar off --disable-pip-version-check --no-input --require-hashes "$@"
}

# The same, with its words in .venv/pip.log and .venv/pip.err, and ours meanwhile on how far it is.
shown_pip() {
    code=0 began=$(date +%s)
    tell_progress 9>&- &
    pip "$@" >.venv/pip.log 2>.venv/pip.err || code=$?
    kill $! 2>/dev/null || true
    wait $! 2>/dev/null || true
    [ ! -t 2 ] || printf '\r\033[K' >&2
    [ $code = 0 ] || return $code
    say "$1: done in $(($(date +%s) - began)) s"
}

pip_does='s/^Collecting \([^ ;]*\).*/collecting \1/p
    s|^Processing [^ ]*/\([^ /-]*\).*|collecting \1|p
    s/^Installing collected .*/installing what was collected/p'

# On a terminal one line that is written anew each second, elsewhere a line every 10 s. It ends with this shell.
tell_progress() {
    told=$began
    while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        now=$(date +%s)
        doing=$(sed -n "$pip_does" .venv/pip.log | tail -n 1)
        if [ -t 2 ]; then
            printf '\r\033[Kbootstrap: %s: %s s' "${doing:-pip begins}" $((now - began)) >&2
        elif [ $((now - told)) -ge 10 ]; then
            say "${doing:-pip begins}: $((now - began)) s so far"
            told=$now
        fi
    done
}

# Words for pip: each lock, or with `--missing` those that the stamp does not have as finished.
as_options() {
    for lock in $locks; do
        [ "${1:-}" = --missing ] && grep -qxF "$(cksum "$lock")" .venv/stamp || printf -- '-r %s ' "$lock"
    done
}

failed() {
    # pip says of each attempt what broke it, in 300 characters, and at last that there is no such version.
    why=$(sed -n "/Retry(total=0.* broken by/{ s/.* broken by '//; s/.*\[Errno [-0-9]*\] //; s/['\"()].*//; p; q; }" .venv/pip.err)
    if [ -n "$why" ]; then
        say "the package index can't be reached ($why): mend the network, or name a proxy (HTTPS_PROXY) or another index" \
            "(PIP_INDEX_URL), then run this again"
        exit 1
    fi
    cat .venv/pip.err >&2
    say "pip could not install $locks (see above): mend that, then run this again"
    exit 1
}

install() {
    cost='a minute the first time, on a slow machine several'
    case "$had/$locks" in
        *cuda.txt*/*) ;;
        */*cuda.txt*)
            cost='250 MB to download for CUDA, 0.5 GB on the disk: minutes, once'
            # Not refused: an image is built before it meets a driver.
            has_nvidia_driver || say 'no NVIDIA driver here: CUDA is installed all the same, for when there is one'
            : >.venv/cuda-begun
            ;;
    esac
    say "installing $locks ($cost)"
    rm -rf .venv/download
    from='' what=$(as_options)
    if in_place; then
        what=$(as_options --missing) from='--no-index --find-links .venv/download'
        # shellcheck disable=SC2086  # several words
        shown_pip download --dest .venv/download $what || failed
        # What has no wheel is built, by tools that come from the index.
        for built in .venv/download/*.tar.gz .venv/download/*.zip; do [ ! -e "$built" ] || from=${from#--no-index }; done
    fi
    unfinished
    # shellcheck disable=SC2086  # several words
    shown_pip install $from $what || {
        # A pip that fails, unlike one that is killed, takes back what it began: without a network the venv stays.
        .venv/bin/python -c 'import pip' 2>/dev/null && { place; echo "had:$had"; } | write_stamp
        failed
    }
    rm -rf .venv/download .venv/cuda-begun
    # supervisord loads our plugin also where it is started by hand, which leaves this checkout out of Python's path.
    for site in .venv/lib/python3*/site-packages; do
        [ ! -d "$site" ] || echo "$root" >"$site/planaria.pth"
    done
    # shellcheck disable=SC2086  # several names
    { place; cksum $locks; } | write_stamp
}

choose "$@"
if finished && [ ! -w .venv/cuda-begun ]; then exit 0; fi

if [ -d .venv ]; then home=.venv; else home=.; fi
[ -w "$home" ] || stop "$root is read-only for $(id -un): make it writable, or copy the checkout to a place that is"

# A file that is there anyway serves as the lock. Pip inherits it: where only this shell is killed, the next run waits.
if command -v flock >/dev/null; then
    exec 9<requirements.txt
    flock -n 9 || {
        if finished; then exit 0; fi  # whoever has it adds something
        say "waiting for another bootstrap of this checkout"
        flock 9 || true
    }
    choose "$@"  # again: whoever had the lock may have installed more
fi
tell_of_broken_off
if finished; then exit 0; fi

in_place || made_by_hand || make_venv "$@"
install
