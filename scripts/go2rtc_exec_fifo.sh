#!/bin/sh
# What a FIFO is fed, for go2rtc's exec: source; scripts/fifo_writer.sh feeds one, and so may any other program.
#
#   scripts/go2rtc_exec_fifo.sh PATH
#
# A writer may die and be started again: go2rtc and its viewers stay connected. A relative PATH is one of this checkout.
set -eu
folder=${0%"${0##*/}"}
. "${folder:-./}wrapper.sh"
exec "$python" -S -m procs.capture.read_fifo "$@"
