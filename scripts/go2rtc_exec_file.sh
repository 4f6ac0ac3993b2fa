#!/bin/sh
# Play a file in a loop for go2rtc's exec: source, as MPEG-TS on stdout, without encoding it again.
#
#   scripts/go2rtc_exec_file.sh FFMPEG FILE
#
# go2rtc may start this and our producer, and never ffmpeg itself: a source that a stranger adds over its API could
# otherwise give ffmpeg arguments of his own, such as a file to write.
set -eu
[ $# = 2 ] || { echo "usage: $0 FFMPEG FILE" >&2; exit 2; }
exec 8>&- 9>&- # go2rtc's lock and configuration, which hold secrets and are none of ours
exec "$1" -nostdin -v error -re -stream_loop -1 -i "file:$2" -map 0:v:0 -map '0:a:0?' -c copy \
    -f mpegts -omit_video_pes_length 0 -muxdelay 0 -muxpreload 0 -flush_packets 1 pipe:1
