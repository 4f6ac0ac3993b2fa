#!/bin/sh
# What a FIFO is fed, for go2rtc's exec: source; scripts/fifo_writer.sh feeds one, and so may any other program.
#
#   scripts/go2rtc_exec_fifo.sh PATH
#
# A writer may die and be started again: go2rtc and its viewers stay connected. A relative PATH is one of this checkout.
set -eu
unset CDPATH  # or cd might go elsewhere, and print where
case "${1--h}" in
-h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac
case "$0" in */*) cd "${0%/*}/.." ;; *) cd .. ;; esac
PLANARIA_PARENT=$PPID
export PLANARIA_PARENT
if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
exec 8>&- 9>&- # go2rtc's lock and configuration, which hold secrets and are none of ours
exec "$python" -S -m procs.capture.read_fifo "$@"
