"""The little of SDP that the hub itself has to read and write, for players that speak WHEP: offers are looked at, the
device's candidates are written into its answer, and those of a player are read from a fragment (RFC 8840). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from procs.errors import Refused
from procs.wire.webrtc import Candidate

MAX_CANDIDATES = 64  # of one fragment
MAX_LINE = 1024
_VIDEO = re.compile(r"m=video\s")
_DIRECTIONS = ("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive")
_AWAY = ("a=sendonly", "a=inactive")


def lines(text: str) -> list[str]:
    """Of a description or a fragment, however they end. Raises Refused for what can't be one."""
    found = [line for line in re.split(r"\r\n|\n|\r", text) if line]
    if any(len(line) > MAX_LINE or not line.isprintable() for line in found):
        raise Refused("a line of SDP is too long, or not printable")
    return found


def check_offer(text: str) -> None:
    """Raise Refused for an offer by which nothing can be seen."""
    found = lines(text)
    if found[:1] != ["v=0"]:
        raise Refused("the offer is no SDP: it has to begin with v=0")
    video = [section for section in _sections(found) if _VIDEO.match(section[0])]
    if not video:
        raise Refused("the offer has no video")
    if all(any(line in _AWAY for line in section) for section in video):
        raise Refused("the offer takes no video: it has to be recvonly, or sendrecv")


def ufrag(text: str) -> str:
    """By which name ICE knows the other side; "" for none."""
    return next((line.partition(":")[2] for line in lines(text) if line.startswith("a=ice-ufrag:")), "")


def with_candidates(text: str, candidates: Iterable[Candidate], *, is_all: bool) -> str:
    """An answer with what was found since it was written. `is_all`: nothing more will be."""
    found = lines(text)
    sections = list(_sections(found))
    head = found[: len(found) - sum(map(len, sections))]
    for candidate in candidates:
        section = _meant(sections, candidate)
        line = f"a={candidate.candidate}"
        if section is not None and line not in section and re.fullmatch(r"a=candidate:[^\r\n]{1,1000}", line):
            section.append(line)
    for section in sections if is_all else ():
        if any(line.startswith("a=candidate:") for line in section) and "a=end-of-candidates" not in section:
            section.append("a=end-of-candidates")
    return "".join(f"{line}\r\n" for line in [*head, *(line for section in sections for line in section)])


def silenced(text: str) -> str:
    """An offer by which nobody can be heard, or seen, where it leads to: what it would send it does not.

    It is read as loosely as any device might read it: whatever one may take for a line's end is one, and whatever one
    may take for a direction, too.
    """
    found = [line.strip() for line in text.splitlines() if line.strip()]
    sections = list(_sections(found))
    head = found[: len(found) - sum(map(len, sections))]
    silent = [_silent(line) for line in head]
    for section in sections:
        is_said = any(_direction(line) for line in section)
        silent += [section[0], *([] if is_said else ["a=recvonly"]), *(_silent(line) for line in section[1:])]
    return "".join(f"{line}\r\n" for line in silent)


def _silent(line: str) -> str:
    silent = {"sendonly": "inactive", "sendrecv": "recvonly"}
    direction = _direction(line)
    return f"a={silent.get(direction, direction)}" if direction else line


def _direction(line: str) -> str:
    """Which one a line says; "" for none. Some parsers take one with a value, which no direction has."""
    name = line[2:].partition(":")[0].strip() if line.startswith("a=") else ""
    return name if f"a={name}" in _DIRECTIONS else ""


def _sections(found: list[str]) -> Iterator[list[str]]:
    """Each medium's lines, from its m= on."""
    starts = [number for number, line in enumerate(found) if line.startswith("m=")]
    for start, end in zip(starts, [*starts[1:], len(found)], strict=False):
        yield found[start:end]


def _meant(sections: list[list[str]], candidate: Candidate) -> list[str] | None:
    for section in sections:
        if candidate.sdp_mid is not None and f"a=mid:{candidate.sdp_mid}" in section:
            return section
    index = candidate.sdp_m_line_index or 0
    return sections[index] if index < len(sections) else None


def fragment(text: str) -> tuple[str, list[Candidate], bool]:
    """What a player has found since its offer: (its ufrag, candidates, whether these are all). Raises Refused."""
    mid: str | None = None
    index, name, is_all = -1, "", False
    candidates: list[Candidate] = []
    for line in lines(text):
        key, _, value = line.partition(":")
        if line.startswith("m="):
            index, mid = index + 1, None
        elif key == "a=ice-ufrag":
            name = value
        elif key == "a=mid":
            mid = value[:200]
        elif key == "a=candidate":
            candidates.append(Candidate(line[2:], mid, None if mid is not None else max(0, index), name or None))
        elif line == "a=end-of-candidates":
            is_all = True
        elif not re.match(r"[a-z]=", line):
            raise Refused("the fragment is no SDP")
    if len(candidates) > MAX_CANDIDATES:
        raise Refused(f"more than {MAX_CANDIDATES} candidates at once")
    return name, candidates, is_all
