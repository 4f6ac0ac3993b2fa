"""Prometheus: the text, and the loopback listener that serves it. By hand, since the client library and the standard
library's server would each be a third of the warden's memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from procs import log
from procs.kinds import Address
from procs.warden.history import BUCKETS_S, Histogram

TYPE = "text/plain; version=0.0.4; charset=utf-8"
LIMIT_S = 0.3  # for one question, all in all: they are answered one by one, and nobody is far away
MAX_HEAD = 8192

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


def family(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> str:
    """One metric: kind is counter or gauge."""
    lines = [f"# HELP planaria_{name} {help_text}", f"# TYPE planaria_{name} {kind}"]
    lines += [f"planaria_{name}{_labels(labels)} {value:.12g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def histogram(name: str, help_text: str, of: Mapping[str, Histogram]) -> str:
    """One histogram a process."""
    lines = [f"# HELP planaria_{name} {help_text}", f"# TYPE planaria_{name} histogram"]
    for process, its in of.items():
        total = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), its.counts, strict=True):
            total += count
            lines.append(f"planaria_{name}_bucket{_labels({'process': process, 'le': bound})} {total}")
        lines.append(f"planaria_{name}_sum{_labels({'process': process})} {its.sum_s:.6f}")
        lines.append(f"planaria_{name}_count{_labels({'process': process})} {total}")
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def serve(address: Address, text: Callable[[], str]) -> None:
    """Answer GET /metrics there from now on. A port that somebody else has is asked for again every few seconds."""

    def serve_on() -> None:
        while True:
            try:
                with socket.create_server(address, family=_family(address)) as listener:
                    while True:
                        _serve_one(listener, text)
            except OSError as error:
                log.warning(f"metrics={address}: {error.strerror}; trying again")
                time.sleep(5.0)

    threading.Thread(target=serve_on, name="metrics", daemon=True).start()


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _serve_one(listener: socket.socket, text: Callable[[], str]) -> None:
    connection, _ = listener.accept()
    with connection:
        try:
            connection.settimeout(LIMIT_S)
            connection.sendall(_answer(_head(connection), text))
        except OSError:
            return  # whoever asked has gone, or is too slow


def _head(connection: socket.socket) -> bytes:
    deadline = time.monotonic() + LIMIT_S
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        piece = connection.recv(MAX_HEAD)
        if not piece:
            break
        head += piece
    return head


def _answer(head: bytes, text: Callable[[], str]) -> bytes:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    is_get, path = words[:1] in ([b"GET"], [b"HEAD"]), b"".join(words[1:2]).partition(b"?")[0]
    status, body = "200 OK", b""
    if len(words) != 3:
        status = "400 Bad Request"
    elif not is_get:
        status = "405 Method Not Allowed"
    elif path != b"/metrics":
        status = "404 Not Found"
    else:
        body = text().encode(errors="replace")  # a command line may hold any bytes
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {TYPE}", f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + (b"" if words[0] == b"HEAD" else body)
