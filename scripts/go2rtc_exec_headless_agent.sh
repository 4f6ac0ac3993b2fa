#!/bin/sh
# One producer for go2rtc's exec: source, which may start our wrappers and nothing else.
#
#   scripts/go2rtc_exec_headless_agent.sh INSTANCE_ID [OPTION ...]
#   scripts/go2rtc_exec_headless_agent.sh omega-0 --width 640 --height 360 --fps 30
#
# `exec` at the end: no shell stands between go2rtc and the producer, so a kill reaches it and nothing is orphaned.
set -eu
folder=${0%"${0##*/}"}
. "${folder:-./}wrapper.sh"
instance_id=$1
shift
exec "$python" -m procs.headless_agent --instance-id "$instance_id" "$@"
