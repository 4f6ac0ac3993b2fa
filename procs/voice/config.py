"""devices.json: which devices are called, and how. Pure: text goes in, devices and problems come out, one line each.

A device with a problem is left out; the others are as they should be. Unknown fields are refused: a typing error would
else be a default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from procs.errors import Refused
from procs.wire.conversation import Instructions, Language

MAX_BYTES = 4 * 1024 * 1024
MAX_DEVICES = 1000
DEFAULT_VOICE = "Watercooler"
MAX_INSTRUCTIONS = 24 * 1024  # bytes: what a child is born with goes into one message, and lines are in it, too
MAX_PROBLEMS = 100  # that are told
_MOST_UNKNOWN = 20  # fields of one device
_SHOWN = 60  # characters of a wrong value
_NAME = re.compile(r"[^/]{1,64}")  # it is a part of a path in REST, too
_HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")
_SECRET = re.compile(r"[!-~]{1,256}")
TYPES = tuple(each.__struct_config__.tag for each in get_args(Instructions))  # of instructions
LANGUAGES = get_args(Language)
FindVoice = Callable[[str], str]  # a voice's default instructions, as JSON; Refused, which names those that there are


class Device(NamedTuple):
    """One entry that is right."""

    name: str
    host: str
    port: int = 8765
    voice: str = DEFAULT_VOICE
    instructions: str = '{"type":"smalltalk"}'
    auto_reconnect: bool = True
    reconnect_delay: float = 5.0
    enabled: bool = True
    token: str = ""
    token_file: str = ""
    tls: bool = False
    ca: str = ""


class Parsed(NamedTuple):
    """What a file says."""

    devices: dict[str, Device]
    problems: list[str]
    wrong: frozenset[str] = frozenset()  # names of devices that have problems


def parse(text: str, find_voice: FindVoice, file: str = "devices.json") -> Parsed:
    """All of a file. Raises Refused, in a line, for what is no list of devices at all."""
    entries = _document(text, file)["devices"]
    found: dict[str, Device] = {}
    at: dict[str, int] = {}
    problems: list[str] = []
    untold = 0
    wrong: set[str] = set()
    for number, entry in enumerate(entries):
        where = f"{file}: devices[{number}]"
        device, its = _device(entry, find_voice, where)
        name = entry.get("name") if isinstance(entry, dict) else None
        if device and device.name in at:
            its = [f'{where}.name="{device.name}": devices[{at[device.name]}] has that name already']
        elif device and not its:
            found[device.name], at[device.name] = device, number
        elif isinstance(name, str):
            wrong.add(name)
        told = its[: MAX_PROBLEMS - len(problems)]
        problems, untold = problems + told, untold + len(its) - len(told)
    if untold:
        problems.append(f"{file}: {untold} more")
    return Parsed(found, problems, frozenset(wrong) - found.keys())


def changed(text: str, name: str, changes: Mapping[str, Any], find_voice: FindVoice) -> str:
    """The file with other values in one entry; None: the default. Raises Refused; KeyError for a name that is not
    there."""
    document = _document(text)
    entry = _entry(document, name)
    before = dict(entry)
    if "name" in changes and changes["name"] != name:
        raise Refused("name: a device keeps its name; add another one")
    for key, value in changes.items():
        if value is None and key in _FIELDS:
            entry.pop(key, None)
        else:
            entry[key] = value
    for given, other in (("token", "token_file"), ("token_file", "token")):
        if changes.get(given):  # one takes the place of the other
            entry.pop(other, None)
    _refuse_wrong(entry, find_voice)
    _refuse_files(changes, before)
    _refuse_theft(changes, before)
    return _written(document)


def added(text: str, entry: Mapping[str, Any], find_voice: FindVoice) -> str:
    """The file with one entry more. Raises Refused."""
    document = _document(text or '{"devices": []}')
    refuse_new(entry, find_voice)
    if any(isinstance(each, dict) and each.get("name") == entry["name"] for each in document["devices"]):
        raise Refused(f'name="{entry["name"]}": there is a device of that name')
    if len(document["devices"]) >= MAX_DEVICES:
        raise Refused(f"there are {MAX_DEVICES} devices already")
    document["devices"].append(dict(entry))
    return _written(document)


def without(text: str, name: str) -> str:
    """The file without one entry. Raises Refused; KeyError for a name that is not there."""
    document = _document(text)
    document["devices"].remove(_entry(document, name))
    return _written(document)


def _document(text: str, file: str = "devices.json") -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise Refused(f"{file}: longer than {MAX_BYTES} characters")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused(f"{file}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise Refused(f"{file}: nested too deeply") from None
    except ValueError:  # a number of thousands of digits
        raise Refused(f"{file}: holds a number that is too long") from None
    refuse_halves(document, file)
    if not isinstance(document, dict) or not isinstance(document.get("devices"), list):
        raise Refused(f'{file}: must be {{"devices": [...]}}')
    if unknown := sorted(document.keys() - {"devices"}):
        raise Refused(f"{file}: {unknown[0][:_SHOWN]!r}: unknown field beside devices")
    if len(document["devices"]) > MAX_DEVICES:
        raise Refused(f"{file}: {len(document['devices'])} devices; at most {MAX_DEVICES} are called")
    return document


def refuse_halves(value: Any, where: str) -> None:
    """Raise Refused where text in it can't be written: JSON can name half of a character (a lone surrogate)."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused(f"{where}: holds a half of a character (a lone surrogate)") from None


def _entry(document: dict[str, Any], name: str) -> dict[str, Any]:
    for entry in document["devices"]:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
    raise KeyError(name)


def _written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def refuse_new(entry: Mapping[str, Any], find_voice: FindVoice) -> None:
    """Raise Refused for what can't be added to any list."""
    _refuse_files(entry, {})
    _refuse_wrong(entry, find_voice)


def _refuse_wrong(entry: Mapping[str, Any], find_voice: FindVoice) -> None:
    _, problems = _device(entry, find_voice, "")
    if problems:
        raise Refused("; ".join(problems))


def _refuse_files(changes: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """What a file of this machine holds is shown to the device: which file that is says devices.json, and no caller."""
    for key in ("token_file", "ca"):
        if changes.get(key) and changes[key] != entry.get(key):
            raise Refused(f"{key}: can be set in the file alone, for it names a file of this machine")


def _refuse_theft(changes: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Whoever may say which device is called does not get to know the token of the one that was."""
    after = {key: default if changes.get(key) is None else changes[key] for key, default in _WHERE.items()}
    moved = [key for key in _WHERE if key in changes and after[key] != entry.get(key, _WHERE[key])]
    is_shown = "token" not in changes and entry.get("token")
    if moved and (is_shown or (entry.get("token_file") and not changes.get("token"))):
        raise Refused(f"{moved[0]}: with another one the token has to be given again")


def _device(entry: Any, find_voice: FindVoice, where: str) -> tuple[Device | None, list[str]]:
    """A device, or what is wrong with it, or both."""
    if not isinstance(entry, Mapping):
        return None, [f"{where}={_shown(entry)}: must be an object"]
    prefix = f"{where}." if where else ""
    values, problems, unknown = {}, [], 0
    for key, value in entry.items():
        if key not in _FIELDS:
            unknown += 1
            if unknown > _MOST_UNKNOWN:
                continue
            named = key[:_SHOWN] if key.isprintable() else _shown(key)
            problems.append(f"{prefix}{named}: unknown field; known are {', '.join(_FIELDS)}")
            continue
        try:
            values[key] = _FIELDS[key].read(value)
        except (ValueError, Refused) as error:
            shown = "***" if key == "token" else _shown(value)
            problems.append(f"{prefix}{key}={shown}: must be {error if str(error) else _FIELDS[key].allowed}")
    problems += [f"{prefix}{key}: is missing" for key in ("name", "host") if key not in entry]
    if values.get("token") and values.get("token_file"):
        problems.append(f"{where}{': ' if where else ''}set either token or token_file")
    try:
        default = find_voice(values.get("voice", DEFAULT_VOICE))
    except Refused as why:
        problems.append(f"{where}{': ' if where else ''}{why}"[:500])
        default = ""
    if default:
        values.setdefault("instructions", default)
    return (None if problems and "name" not in values else Device(**{"name": "", "host": "", **values})), problems


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class _Field(NamedTuple):
    read: Callable[[Any], Any]  # ValueError: it is not what is allowed
    allowed: str


def _matching(pattern: re.Pattern[str], *, may_be_empty: bool = False) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not (pattern.fullmatch(value) or (may_be_empty and not value)):
            raise ValueError
        return value

    return read


def _host(value: Any) -> str:
    text = _matching(re.compile(r".{1,255}"))(value)
    return _matching(_HOST)(text.removeprefix("[").removesuffix("]"))


def _name(value: Any) -> str:
    text = _matching(_NAME)(value)
    if text != text.strip() or not text.isprintable() or text in (".", ".."):
        raise ValueError
    return str(value)


def _port(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a whole number without quotes, 1 to 65535")
    if not 1 <= value <= 65535:
        raise ValueError
    return value


def _switch(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _delay(value: Any) -> float:
    if type(value) not in (int, float) or not 0.1 <= value <= 3600:
        raise ValueError
    return float(value)


def instructions(value: Any) -> str:
    """Instructions as JSON; plain text is taken as `constant`. Raises ValueError, which says what they must be."""
    wanted = {"type": "constant", "text": value} if isinstance(value, str) else value
    if not isinstance(wanted, dict) or not wanted.get("type"):
        raise ValueError
    if wanted["type"] not in TYPES:
        raise ValueError(f"instructions of a type that there is: {', '.join(TYPES)}")
    if (language := wanted.get("language")) is not None and language not in LANGUAGES:
        raise ValueError(f"instructions in a language that there is: {', '.join(LANGUAGES)}")
    try:
        found: Any = msgspec.convert(wanted, Instructions)
    except msgspec.ValidationError as error:
        raise ValueError(f"instructions ({error})") from None
    if unknown := sorted(wanted.keys() - {"type", *found.__struct_fields__}):
        raise ValueError(f"instructions without {unknown[0][:_SHOWN]!r}, which {wanted['type']} does not have")
    text = msgspec.json.encode(found).decode()
    if len(msgspec.json.encode(text)) > MAX_INSTRUCTIONS:
        raise ValueError(f"instructions of at most {MAX_INSTRUCTIONS} bytes")
    return text


_WHERE = {"host": None, "port": 8765, "tls": False, "ca": ""}  # a device is, and who it has to be
_FIELDS = {
    "name": _Field(_name, "1 to 64 characters without a /, and no blank at either end; not . or .."),
    "host": _Field(_host, "the address or the name of a host"),
    "port": _Field(_port, "1 to 65535"),
    "voice": _Field(_matching(re.compile(r"[^\x00-\x1f\x7f]{1,200}")), "a voice (GET /v1/voices names them)"),
    "instructions": _Field(
        instructions, 'an object such as {"type": "smalltalk"}, or text that tells the bot how to be'
    ),
    "auto_reconnect": _Field(_switch, "true or false"),
    "reconnect_delay": _Field(_delay, "seconds from 0.1 to 3600"),
    "enabled": _Field(_switch, "true or false"),
    "token": _Field(_matching(_SECRET, may_be_empty=True), "1 to 256 printable ASCII characters without blanks"),
    "token_file": _Field(_matching(re.compile(r"[^\x00]{1,1000}"), may_be_empty=True), "the path of a file"),
    "tls": _Field(_switch, "true or false"),
    "ca": _Field(_matching(re.compile(r"[^\x00]{1,1000}"), may_be_empty=True), "the path of a file"),
}
