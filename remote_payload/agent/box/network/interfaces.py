"""The network interfaces of this machine and their IPv4 addresses, as the kernel tells them (netdevice(7))."""

import fcntl
import socket
import struct
from typing import List, NamedTuple, Optional

GET_ADDRESS, GET_FLAGS = 0x8915, 0x8913  # SIOCGIFADDR, SIOCGIFFLAGS
UP, LOOPBACK = 0x1, 0x8  # IFF_UP, IFF_LOOPBACK


class Interface(NamedTuple):
    """An interface that is up, with its first address."""

    name: str
    address: str


def list_interfaces() -> List[Interface]:
    """Those that are up and have an address, without the loopback, in the kernel's order."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            flags, address = _ask(asking, name, GET_FLAGS), _ask(asking, name, GET_ADDRESS)
            if flags is None or address is None:
                continue
            bits = struct.unpack_from("=H", flags, 16)[0]
            if bits & UP and not bits & LOOPBACK:
                found.append(Interface(name, socket.inet_ntoa(address[20:24])))
    return found


def _ask(asking: socket.socket, name: str, question: int) -> Optional[bytes]:
    """The kernel's ``struct ifreq``; None where it has no answer for this interface."""
    try:
        return fcntl.ioctl(asking, question, struct.pack("256s", name.encode("utf-8", "surrogateescape")[:15]))
    except OSError:
        return None
