#!/bin/sh
# Feed a FIFO with the pictures of a capture command, H.264 or MPEG-TS, whether somebody reads it or not.
#
#   scripts/fifo_writer.sh [--] FIFO COMMAND [ARGUMENT ...]
#   scripts/fifo_writer.sh temp/streams/omega-0.ts ffmpeg -v error -f x11grab -i :0 -c:v libx264 -tune zerolatency -f mpegts pipe:1
#
# A relative FIFO is one of the directory you are in; the command runs in this checkout. It ends when the command does:
# whoever wants it to run for ever starts it again, as supervisord does.
set -eu
here=$PWD
folder=${0%"${0##*/}"}
. "${folder:-./}wrapper.sh"
[ "$1" != -- ] || shift
[ $# -ge 2 ] || { echo "usage: $0 [--] FIFO COMMAND [ARGUMENT ...]" >&2; exit 2; }
case "$1" in /*) fifo=$1 ;; *) fifo=$here/$1 ;; esac
shift
exec "$python" -m procs.capture --fifo "$fifo" -- "$@"
