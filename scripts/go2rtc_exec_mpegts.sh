#!/bin/sh
# The pictures of a capture command, H.264 or MPEG-TS, for go2rtc's exec: source, as MPEG-TS without added delay.
#
#   scripts/go2rtc_exec_mpegts.sh [--] COMMAND [ARGUMENT ...]
#   scripts/go2rtc_exec_mpegts.sh ffmpeg -v error -f v4l2 -i /dev/video0 -c:v libx264 -tune zerolatency -f h264 pipe:1
#
# `exec` at the end: no shell stands between go2rtc and the capture, so a kill reaches it and nothing is orphaned.
set -eu
folder=${0%"${0##*/}"}
. "${folder:-./}wrapper.sh"
[ "$1" != -- ] || shift
exec "$python" -m procs.capture --input auto -- "$@"
