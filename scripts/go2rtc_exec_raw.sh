#!/bin/sh
# What a command writes, as it is, for go2rtc's exec: source; the command ends with all it started when we do.
#
#   scripts/go2rtc_exec_raw.sh [--] COMMAND [ARGUMENT ...]
#   scripts/go2rtc_exec_raw.sh sh -c "my-camera | ffmpeg -v error -i pipe:0 -c copy -f flv pipe:1"
#
# `exec` at the end: no shell stands between go2rtc and the capture, so a kill reaches it and nothing is orphaned.
set -eu
unset CDPATH  # or cd might go elsewhere, and print where
case "${1--h}" in
-h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
--) shift ;;
esac
case "$0" in */*) cd "${0%/*}/.." ;; *) cd .. ;; esac
PLANARIA_PARENT=$PPID
export PLANARIA_PARENT
if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
exec 8>&- 9>&- # go2rtc's lock and configuration, which hold secrets and are none of ours
exec "$python" -m procs.capture --raw -- "$@"
