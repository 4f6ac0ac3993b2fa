"""Typed settings: defaults < YAML file < .env < environment < flags. A wrong value is one line and exit 2.

A program declares a class of `Settings` whose fields are made by `option`; `load` fills it. Each value keeps
where it came from, so that an error can name key, value, source, and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, dataclass_transform

from procs.errors import ConfigError
from procs.kinds import Kind

S = TypeVar("S", bound="Settings")
VERSION = "0.1.0"  # as pyproject.toml has it
ROOT = Path(__file__).resolve().parent.parent


class Option(NamedTuple):
    """What `option` says of a field."""

    default: Any
    kind: Kind
    env: tuple[str, ...]
    help: str
    secret: bool


def in_file(variable: str, kind: Kind, file: Path) -> Any:
    """What a setting's file holds, for one that is a secret and so has a file instead. Raises ConfigError."""
    try:
        return kind.parse(file.read_text().strip())
    except OSError as error:
        raise ConfigError(f"{variable}={str(file)!r}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{variable}={str(file)!r}: must hold {kind.allowed}") from None


def option(default: Any, kind: Kind, *, env: tuple[str, ...] = (), help: str, secret: bool = False) -> Any:
    """A field that `load` can fill. `env`: variables that set it, the first that is set wins.

    A secret gets no flag: command lines can be read by everybody.
    """
    return Option(default, kind, env, help, secret)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Settings:
    """Base of every settings class: annotated fields with defaults, which never change.

    To a type checker it is a frozen dataclass. It is none: those cost a producer 4 ms of its start, and a capture,
    which needs nothing else that imports `inspect`, 10 ms more.
    """

    _options: ClassVar[dict[str, Option]]
    _defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        declared = {name: getattr(cls, name) for name in cls.__annotations__}
        cls._options = {name: value for name, value in declared.items() if isinstance(value, Option)}
        cls._defaults = declared | {name: option.default for name, option in cls._options.items()}
        for name, default in cls._defaults.items():
            setattr(cls, name, default)

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - self._defaults.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        vars(self).update(self._defaults | values)

    def but(self, **changes: Any) -> Self:
        """A copy with other values."""
        return type(self)(**(vars(self) | changes))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name}: settings do not change")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if value != self._defaults[name]}
        secret = {name: "***" for name in shown if name in self._options and self._options[name].secret}
        return f"{type(self).__name__}({shown | secret})"


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Layers(NamedTuple):
    """Where values come from, strongest first. `flags` and `document` are keyed by field, the others by variable.
    All values are text; a section of `document` where a value should be is refused."""

    flags: Mapping[str, str] = _NOTHING
    environ: Mapping[str, str] = _NOTHING
    env_file: Mapping[str, str] = _NOTHING
    document: Mapping[str, Any] = _NOTHING
    document_name: str = "settings file"


def options_of(cls: type[Settings]) -> dict[str, Option]:
    """Field name -> option of a settings class, in the order written."""
    return cls._options


def load(cls: type[S], layers: Layers) -> S:
    """Fill a settings class. Raises ConfigError for the first wrong value or unknown key."""
    known = options_of(cls)
    refuse_unknown_keys(layers.document, known, layers.document_name)
    values = {}
    for name, opt in known.items():
        found = _find(name, opt, layers)
        if found:
            values[name] = parse(opt, *found)
    return cls(**values)


def places_set(cls: type[Settings], layers: Layers) -> dict[str, str]:
    """The options that some layer sets, as against those left at their default: {option: where, for people}."""
    found = ((name, _find(name, opt, layers)) for name, opt in options_of(cls).items())
    return {name: its[2] if its[0] == name else f"{its[0]}, {its[2]}" for name, its in found if its}


def variables(
    cls: type[Settings], document: Mapping[str, Any], environ: Mapping[str, str], env_file: Mapping[str, str]
) -> dict[str, str]:
    """What a settings file says of a class, as the variables that tell a process of it; not what others say louder."""
    return {
        opt.env[0]: str(document[name])
        for name, opt in options_of(cls).items()
        if opt.env and name in document and not any(environ.get(each) or env_file.get(each) for each in opt.env)
    }


def _find(name: str, opt: Option, layers: Layers) -> tuple[str, Any, str] | None:
    """(key as the person wrote it, raw value, where), of the strongest layer that sets the option."""
    if name in layers.flags:
        return f"--{name.replace('_', '-')}", layers.flags[name], "command line"
    for variables, where in ((layers.environ, "environment"), (layers.env_file, ".env")):
        for variable in opt.env:
            if variables.get(variable, "") != "":
                return variable, variables[variable], where
    if layers.document.get(name, "") != "":
        return name, layers.document[name], layers.document_name
    return None


def parse(opt: Option, key: str, value: Any, where: str) -> Any:
    """An option's value, from text. Raises ConfigError that names the key and where it was found."""
    try:
        if not isinstance(value, str):  # a section where a value should be
            raise ValueError
        return opt.kind.parse(value.strip())
    except ValueError:
        shown = "***" if opt.secret else re.sub(r"(://)\S*@", r"\1***@", repr(value))
        raise ConfigError(f"{key}={shown} ({where}): must be {opt.kind.allowed}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """What somebody who wrote this may have meant; "" if it is near to none."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def refuse_unknown_keys(document: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    """Raise ConfigError if a file has a key that is none of the known ones."""
    for key in document:
        if key not in known:
            close = nearest(str(key), known)
            meant = f"did you mean {close}?" if close else f"known keys: {', '.join(sorted(known))}"
            raise ConfigError(f"{key!r}: unknown key in {where}; {meant}")


def run_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Directory of locks and sockets, made 0700. Raises ConfigError if it can't be."""
    path = ROOT / (environ.get("PLANARIA_RUN_DIR") or "run")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"PLANARIA_RUN_DIR={str(path)!r}: cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"PLANARIA_RUN_DIR={str(path)!r}: must be a directory we can write to")
    return path


def written(path: Path, *, is_needed: bool = False) -> dict[str, Any]:
    """What `make up` has left in run/ for a process; {} without one that is not needed. Raises ConfigError."""
    import msgspec  # here: scripts/down.py, which needs nothing that was installed, comes by this file

    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        if isinstance(error, FileNotFoundError) and not is_needed:
            return {}
        raise ConfigError(f"{path}: cannot be read ({error}); make up writes it") from None
