"""The kernel's TUN and TAP: an interface whose packets a program reads and writes.

`create_tun`, `create_tap`, `check_tun_support` and `get_interface_info` are published helpers; `claim` takes an
interface for a tunnel: makes it, or takes over what one of ours has left when it was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import time
from pathlib import Path
from struct import pack

from procs.agent import netlink
from procs.agent.device import TunDevice as TunDevice
from procs.agent.lane import vnet
from procs.agent.network import INTERFACE, Tunnel
from procs.errors import ConfigError, NotHere, PlanariaError

TunError = PlanariaError  # what the published helpers raise, by its published name
DEVICE = Path("/dev/net/tun")
# Packets that the kernel keeps for us. Beyond it they are dropped, which is what TCP wants to see: 500 delayed all that
# came behind them twice as long, and took no more; 100 were too few for the bursts of a TCP that paces nothing.
QUEUE = 200
BUSY_S = 1.0  # for the kernel to let go of what a killed process had
_SETIFF = 0x400454CA
_TUN, _TAP, _NO_PI, _VNET_HDR = 1, 2, 0x1000, 0x4000


def check_tun_support() -> bool:
    """Whether a TUN can be opened here."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def create_tun(name: str = "tun0") -> tuple[int, str]:
    """Make or open a TUN interface, which is gone once it is closed: (descriptor, its name). Raises TunError."""
    return _open(name, _TUN), name


def create_tap(name: str = "tap0") -> tuple[int, str]:
    """The same of a TAP, which carries Ethernet frames."""
    return _open(name, _TAP), name


def get_interface_info(name: str) -> dict[str, str | int] | None:
    """Its name, rx_bytes, rx_packets, tx_bytes, tx_packets; None if there is none."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        head, colon, rest = line.partition(":")
        if colon and head.strip() == name:
            fields = [int(word) for word in rest.split()]
            figures = {"rx_bytes": 0, "rx_packets": 1, "tx_bytes": 8, "tx_packets": 9}
            return {"name": name, **{key: fields[at] for key, at in figures.items()}}
    return None


def claim(tunnel: Tunnel, mark: str) -> tuple[TunDevice, list[netlink.Network]]:
    """The tunnel's interface, as it was asked for, and up: opened anew, or taken over from one of the same mark. It
    outlives us. Also those of its routes that already lead elsewhere.

    Without CAP_NET_ADMIN it must have been made for our user. Raises ConfigError, NotHere.
    """
    name = tunnel.interface
    before = netlink.link(name)
    if before and (before.kind != "tun" or before.is_tap or not _is_for(before, mark)):
        whose = f": {before.alias}" if before.alias else ""
        how = "--interface NAME, or interface: NAME under tunnel: in planaria.yaml"
        raise ConfigError(f"interface={name}: is taken{whose}; choose another name: {how}")
    largest = vnet.HEAD + tunnel.mtu + 256  # the MTU may be raised by hand, within reason
    device = TunDevice(_open(name, _TUN | _VNET_HDR), name, largest, is_framed=True)
    device.offload(on=False)  # as it was when who had it before was killed
    made = netlink.link(name)
    if made is None:
        raise NotHere(f"{name}: somebody has removed it")
    try:
        # Marked before it is made to stay: killed in between, nothing stays that nobody knows.
        netlink.set_link(made.number, mtu=tunnel.mtu, queue=QUEUE, alias=mark)
        device.persist(on=True)
        netlink.set_addresses(made.number, tunnel.address)
        return device, netlink.set_routes(made.number, tunnel.routes)
    except PermissionError as error:
        _refuse_unprepared(tunnel, made, error)
        return device, []
    except OSError as error:
        raise NotHere(f"{name}: can't be set up: {error.strerror} ({_shown(tunnel)}); is IPv6 off here?") from None


def release(mark: str) -> list[str]:
    """Remove the interfaces that bear this mark; returns their names. Raises OSError."""
    ours = [each for each in netlink.links() if each.kind == "tun" and each.alias == mark]
    for each in ours:
        netlink.delete_link(each.number)
    return [each.name for each in ours]


def _is_for(link: netlink.Link, mark: str) -> bool:
    return link.alias == mark or (not link.alias and link.owner == os.getuid())


def _refuse_unprepared(tunnel: Tunnel, link: netlink.Link, error: OSError) -> None:
    """One that was made for our user has to be as we would have made it."""
    missing = set(tunnel.address) - netlink.addresses(link.number)
    elsewhere = [each for each in tunnel.routes if netlink.way_to(each.network_address) != link.number]
    if missing or elsewhere or not link.is_up or link.mtu != tunnel.mtu:
        raise NotHere(f"{link.name}: {error.strerror}; {_by_root(tunnel)}") from None


def _open(name: str, kind: int) -> int:
    """A descriptor of the interface, which is made if there is none. Raises ConfigError, NotHere."""
    try:
        INTERFACE.parse(name)
    except ValueError:
        raise ConfigError(f"interface={name!r}: must be {INTERFACE.allowed}") from None
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        how = "modprobe tun, or in a container --device /dev/net/tun --cap-add NET_ADMIN"
        raise NotHere(f"{DEVICE}: {error.strerror}: there are no tunnels without it ({how})") from None
    flags = kind | _NO_PI
    until = time.monotonic() + BUSY_S
    while True:
        try:
            fcntl.ioctl(fd, _SETIFF, pack("16sH22x", name.encode(), flags))
            return fd
        except OSError as error:
            if error.errno == errno.EBUSY and time.monotonic() < until:
                time.sleep(0.02)
                continue
            os.close(fd)
            raise _in_words(name, error) from None


def _in_words(name: str, error: OSError) -> PlanariaError:
    if error.errno == errno.EBUSY:
        return NotHere(f"{name}: another program has it open; end that, or choose another name")
    if error.errno == errno.EINVAL:
        return ConfigError(f"interface={name}: is taken by an interface of another kind; choose another name")
    return NotHere(f"{name}: {error.strerror}: needs root or CAP_NET_ADMIN; or have root make it: {_making(name)}")


def _making(name: str) -> str:
    user = pwd.getpwuid(os.getuid()).pw_name
    return f"ip tuntap add {name} mode tun user {user}"


def _by_root(tunnel: Tunnel) -> str:
    name = tunnel.interface
    lines = [f"ip link set {name} up mtu {tunnel.mtu}", *(f"ip addr add {each} dev {name}" for each in tunnel.address)]
    lines += [f"ip route add {each} dev {name}" for each in sorted(tunnel.routes, key=str)]
    return f"needs root or CAP_NET_ADMIN; or have root say: {'; '.join([_making(name), *lines])}"


def _shown(tunnel: Tunnel) -> str:
    return ", ".join(map(str, tunnel.address))
