#!/bin/sh
# Start coturn with the hub's secret, which stands in no command line. Arguments go on to turnserver.
#   TURN_SECRET       as the hub has it
#   TURN_PORTS        UDP ports that it relays on (49152-65535)
#   TURN_EXTERNAL_IP  the address by which it is reached, where that is none of this machine's own
#   TURN_DIR          where it may write (/tmp)
set -eu
umask 077
: "${TURN_SECRET:?must be what the hub has}"
ports=${TURN_PORTS:-49152-65535}
dir=${TURN_DIR:-/tmp}
newline='
'
case $TURN_SECRET in *"$newline"*) echo "TURN_SECRET: must be one line" >&2 && exit 2 ;; esac
{
	cat "$(dirname "$0")/turnserver.conf"
	printf 'static-auth-secret=%s\n' "$TURN_SECRET"
	printf 'min-port=%s\nmax-port=%s\n' "${ports%-*}" "${ports#*-}"
	printf 'pidfile=%s/turnserver.pid\nuserdb=%s/turndb\n' "$dir" "$dir"
	if [ -n "${TURN_EXTERNAL_IP:-}" ]; then printf 'external-ip=%s\n' "$TURN_EXTERNAL_IP"; fi
} >"$dir/turnserver.conf"
unset TURN_SECRET
exec turnserver -c "$dir/turnserver.conf" "$@"
