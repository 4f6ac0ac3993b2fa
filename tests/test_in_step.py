"""The architecture stands written three times: `ls procs/`, supervisord.conf, the README's picture. They agree."""

from __future__ import annotations

import configparser
import re
from fnmatch import fnmatch

import msgspec

from procs import settings
from procs.agent.network import Tunnel
from procs.agent.settings import AgentSettings
from procs.audio_io.options import Audio
from procs.capture.options import Capture
from procs.environment import OUR_ENV
from procs.headless_agent.options import Producer
from procs.hub.options import Hub
from procs.kinds import Address
from procs.proxy.options import Proxy
from procs.settings import ROOT
from procs.speech.options import Speech
from procs.speech.tts import voices as synthesised
from procs.voice import voices
from procs.voice.options import Voice
from procs.webrtc_peer.options import Peer
from procs.ws_link.options import Link
from scripts.suite_settings import Suite
from tests.test_arrows import FLOOR

FOREIGN = {"go2rtc"}  # supervised, but not ours
STARTED_BY_GO2RTC = {"headless_agent"}
# Started by go2rtc too, or supervised through run/supervisor.d/*.conf, which is made from the settings: one a FIFO.
STARTED_AS_SET_UP = {"capture"}


def rooms() -> set[str]:
    """The folders of procs/ that are processes."""
    return {p.parent.name for p in (ROOT / "procs").glob("*/__main__.py")} - set(FLOOR)


def programs() -> set[str]:
    """The programs of supervisord.conf, by room."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read(ROOT / "supervisord.conf")
    names = [s.partition(":")[2] for s in parser.sections() if re.match(r"(fcgi-)?program:|eventlistener:", s)]
    return {name if name in FOREIGN else next((r for r in rooms() if name.startswith(r)), name) for name in names}


def picture() -> set[str]:
    """The names in square brackets of the README's first picture."""
    drawn = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert drawn, "README.md has no picture in a ```text block"
    return set(re.findall(r"\[([a-z0-9_]+)\]", drawn[1]))


def test_rooms_are_supervised() -> None:
    assert programs() - FOREIGN == rooms() - STARTED_BY_GO2RTC - STARTED_AS_SET_UP


def test_the_picture_shows_every_process() -> None:
    assert picture() == rooms() | FOREIGN | {"supervisord"}


def test_each_program_says_what_stops_without_it() -> None:
    lines = (ROOT / "supervisord.conf").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("[program:", "[fcgi-program:", "[eventlistener:")):
            assert lines[number - 1].startswith(";"), f"{line} has no comment above it"


def test_every_variable_of_ours_is_declared_and_explained() -> None:
    declared = {
        name
        for cls in (AgentSettings, Audio, Capture, Hub, Link, Peer, Producer, Proxy, Speech, Suite, Tunnel, Voice)
        for opt in settings.options_of(cls).values()
        for name in opt.env
        if name.startswith("PLANARIA_")
    }
    by_hand = {
        "PLANARIA_FOREGROUND",
        "PLANARIA_LOG",
        "PLANARIA_PARENT",
        "PLANARIA_RUN_DIR",
        "PLANARIA_SETTINGS",
        "PLANARIA_SUITE",
    }
    assert declared | by_hand == OUR_ENV
    internal = {"PLANARIA_FOREGROUND", "PLANARIA_PARENT", "PLANARIA_SUITE"}
    example = (ROOT / ".env.example").read_text()
    missing = [name for name in OUR_ENV - internal if not re.search(rf"^#? ?{name}=", example, re.M)]
    assert not missing, f".env.example does not explain {missing}"


def test_every_voice_is_listed_with_what_it_does_its_language_and_who_speaks() -> None:
    listed = re.findall(r"^\| `([^`]+)` \| .*\(`(\w+)`\) \| `([a-z/]+)` \| `(\S+)` \|$", readme(), re.M)
    told = [msgspec.to_builtins(each.instructions) for each in voices.known()]
    languages = [its.get("language") or {"unmute_explanation": "en"}.get(its["type"], "en/fr") for its in told]
    assert listed == [
        (each.name, its["type"], language, str(synthesised.of(each.voice)))
        for each, its, language in zip(voices.known(), told, languages, strict=True)
    ]


def test_each_port_of_a_second_checkout_is_named() -> None:
    said = re.search(r"Its ports by variables: (.*?)\n\n", readme(), re.S)
    ports = {
        name
        for cls in (Audio, Hub, Speech, Suite, Voice)
        for opt in settings.options_of(cls).values()
        for name in opt.env
        if isinstance(opt.default, Address) or name in ("PORT", "PLANARIA_AUDIO_PORT")
    }
    assert said and set(re.findall(r"`([A-Z0-9_]+)`", said[1])) == ports


def readme() -> str:
    """All of it."""
    return (ROOT / "README.md").read_text()


def test_what_people_are_told_to_make_with_openssl_is_never_added_to_git() -> None:
    ignored = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line]
    texts = readme() + (ROOT / "procs/hub/options.py").read_text()
    made = [name for pair in re.findall(r"-keyout (\S+) -out (\S+)", texts) for name in pair]
    assert len(made) == 4 and all(any(fnmatch(name, each) for each in ignored) for name in made)


def test_the_table_of_contents_leads_to_every_section() -> None:
    text = re.sub(r"^```.*?^```", "", readme(), flags=re.M | re.S)
    sections = [
        re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in re.findall(r"^###? (.*)", text, re.M)
    ]
    contents = text[: text.index("\n## ")]
    assert [each for each in re.findall(r"\]\(#(.*?)\)", contents) if each in sections][: len(sections)] == sections
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= {*sections}
