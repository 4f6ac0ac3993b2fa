#!/bin/sh
# Feed a FIFO with the pictures of a capture command, H.264 or MPEG-TS, whether somebody reads it or not.
#
#   scripts/fifo_writer.sh [--] FIFO COMMAND [ARGUMENT ...]
#   scripts/fifo_writer.sh run/fifo/omega-0 ffmpeg -v error -f x11grab -i :0 -c:v libx264 -tune zerolatency -f mpegts pipe:1
#
# A relative FIFO is one of the directory you are in; the command runs in this checkout. It ends when the command does:
# whoever wants it to run for ever starts it again, as supervisord does.
set -eu
unset CDPATH  # or cd might go elsewhere, and print where
case "${1--h}" in
-h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
--) shift ;;
esac
case "${1-}" in
'') echo "usage: $0 [--] FIFO COMMAND [ARGUMENT ...]" >&2; exit 2 ;;
/*) fifo=$1 ;;
*) fifo=$(pwd -P)/$1 ;;
esac
shift
case "$0" in */*) cd "${0%/*}/.." ;; *) cd .. ;; esac
PLANARIA_PARENT=$PPID
export PLANARIA_PARENT
if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
exec 8>&- 9>&- # a parent's descriptors are none of ours
exec "$python" -m procs.capture --fifo "$fifo" -- "$@"
