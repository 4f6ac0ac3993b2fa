#!/bin/sh
# The pictures of a capture command, H.264 or MPEG-TS, for go2rtc's exec: source, as MPEG-TS without added delay.
#
#   scripts/go2rtc_exec_mpegts.sh [--] COMMAND [ARGUMENT ...]
#   scripts/go2rtc_exec_mpegts.sh ffmpeg -v error -f v4l2 -i /dev/video0 -c:v libx264 -tune zerolatency -f h264 pipe:1
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
exec "$python" -m procs.capture --input auto -- "$@"
