#!/bin/sh
# One producer for go2rtc's exec: source; its exec.allow_paths lets it start this and go2rtc_exec_file.sh, no more.
#
#   scripts/go2rtc_exec_headless_agent.sh INSTANCE_ID [OPTION ...]
#   scripts/go2rtc_exec_headless_agent.sh omega-0 --width 640 --height 360 --fps 30
#
# `exec` at the end: no shell stands between go2rtc and the producer, so a kill reaches it and nothing is orphaned.
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
instance_id=$1
shift
exec "$python" -m procs.headless_agent --instance-id "$instance_id" "$@"
