#!/bin/sh
# What a command writes, as it is, for go2rtc's exec: source; the command ends with all it started when we do.
#
#   scripts/go2rtc_exec_raw.sh [--] COMMAND [ARGUMENT ...]
#   scripts/go2rtc_exec_raw.sh sh -c "my-camera | ffmpeg -v error -i pipe:0 -c copy -f flv pipe:1"
#
# `exec` at the end: no shell stands between go2rtc and the capture, so a kill reaches it and nothing is orphaned.
set -eu
folder=${0%"${0##*/}"}
. "${folder:-./}wrapper.sh"
[ "$1" != -- ] || shift
exec "$python" -m procs.capture --raw -- "$@"
