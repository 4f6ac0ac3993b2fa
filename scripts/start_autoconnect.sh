#!/bin/sh
# Start the voice backend in the foreground: it calls each device of devices.json and talks with whoever is there.
#
#   scripts/start_autoconnect.sh                                   with devices.json of this checkout
#   REMOTE_DEVICES_CONFIG=/etc/planaria/devices.json scripts/start_autoconnect.sh --port 8000
#   scripts/start_autoconnect.sh --help                            every option and variable
#
# It is `python -m procs.voice` and nothing else, and installs what that needs. It starts nobody who hears, speaks and
# answers: KYUTAI_STT_URL, KYUTAI_TTS_URL and KYUTAI_LLM_URL say where they are, else they are looked for on this machine.
# With `make up ROLES=voice` all of it is started, and started again whenever it dies.
#
# exit codes: 2 there is no devices.json, or an option is wrong; those of `python -m procs.voice`
set -eu
unset CDPATH  # or cd might go elsewhere, and print where
here=$PWD
cd "$(dirname -- "$0")/.."

file=${REMOTE_DEVICES_CONFIG:-}
if [ -n "$file" ]; then
    case "$file" in /*) ;; *) file=$here/$file ;; esac
elif [ -f .env ]; then
    file=$(sed -n "s/^\(export \)\{0,1\}REMOTE_DEVICES_CONFIG=[\"']\{0,1\}\([^\"']*\).*/\2/p" .env | tail -n 1)
fi
file=${file:-$PWD/devices.json}

case " $* " in
*" -h "* | *" --help "* | *" --devices"*) ;; # told, or told otherwise
*)
    if [ ! -f "$file" ]; then
        echo "start_autoconnect: there is no $file; make one, and say in it where your devices are:" >&2
        echo "start_autoconnect: cp $PWD/scripts/devices.example.json $file" >&2
        exit 2
    fi
    ;;
esac

REMOTE_DEVICES_CONFIG=$file PYTHONPATH=$PWD python=.venv/bin/python
export REMOTE_DEVICES_CONFIG PYTHONPATH
case " $* " in
*" -h "* | *" --help "*)
    [ -x "$python" ] || python=python3 # any can tell
    "$python" -m procs.voice "$@" | sed "s|python -m procs.voice|scripts/start_autoconnect.sh|"
    exit
    ;;
esac
sh scripts/bootstrap.sh voice
PLANARIA_PARENT=$PPID
export PLANARIA_PARENT
exec "$python" -m procs.voice "$@"
