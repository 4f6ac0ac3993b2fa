# What every wrapper does first. It is sourced: $0 and the arguments are the wrapper's own. From here on we are in the
# checkout, $python is ours, and our parent's death is noticed however early it comes (procs/prctl.py).
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
