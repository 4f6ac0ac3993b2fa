#!/bin/sh
# Make sure that the programs and libraries that tests need are installed. Never fails: without them, tests that need them are skipped.
set -eu

# command or library  Debian package
needed='
ffmpeg            ffmpeg
ffprobe           ffmpeg
chromium          chromium
s6-svscan         s6
nginx             nginx-light
sshd              openssh-server
ssh               openssh-client
postgres          postgresql
wrk               wrk
turnserver        coturn
nft               nftables
ip                iproute2
iperf3            iperf3
wireguard-go      wireguard-go
wg                wireguard-tools
flite             flite
espeak-ng         espeak-ng
libportaudio.so.2 libportaudio2
libEGL.so.1       libegl1
libEGL_mesa.so.0  libegl-mesa0
libEGL_mesa.so.0  libgl1-mesa-dri
libOpenGL.so.0    libopengl0
systemd-analyze   systemd
gcc               gcc
gcc               libc6-dev
'

say() { echo "setup_tests: $*" >&2; }

is_here() {
    case "$1" in
    *.so.*) PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -qF "$1 " ;;
    *) PATH=$PATH:/usr/sbin:$(echo /usr/lib/postgresql/*/bin) command -v "$1" >/dev/null ;;
    esac
}

missing() {
    echo "$needed" | while read -r command package; do
        [ -z "$command" ] || is_here "$command" || echo "$package"
    done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

# apt's own output matters only when it fails. An `update` that fails may still leave lists that are good enough.
as_root() {
    # shellcheck disable=SC2086,SC2016  # several packages; $@ is for the inner shell
    output=$("$@" env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get update -qq
        exec apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
    ' sh $packages 2>&1) || { echo "$output" | tail -n 3 >&2; return 1; }
}

packages=$(missing)
[ -n "$packages" ] || exit 0

if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then
        say "installing $packages (a minute or two)"
        if as_root; then exit 0; fi
    elif sudo -n true 2>/dev/null; then
        say "installing $packages with sudo (a minute or two)"
        if as_root sudo -n; then exit 0; fi
    fi
    say "tests that need $packages will be skipped; to run them: sudo apt-get update && sudo apt-get install -y $packages"
else
    say "tests that need $packages will be skipped; to run them, install these with your system's package manager"
fi
