"""Flags of a command line: those of a settings class, read by argparse or, where they are plain, without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from procs.errors import ConfigError
from procs.kinds import PATH, SWITCH, TEXT
from procs.settings import Settings, options_of

if TYPE_CHECKING:
    import argparse


def command_line(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose mistakes are one line (ConfigError), and whose --help ends with examples."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise ConfigError(f"{message}; {self.prog} --help lists what there is")

    return Parser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def plain_flags(cls: type[Settings], argv: Sequence[str]) -> dict[str, str] | None:
    """What `parse_flags` returns, for a command line that is nothing but `--name value` pairs, as programs write it;
    None for any other. argparse costs 9 ms, in which a viewer waits."""
    known = {
        f"--{name.replace('_', '-')}": name
        for name, opt in options_of(cls).items()
        if not opt.secret and opt.kind is not SWITCH
    }
    pairs = list(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) % 2 or any(flag not in known or value.startswith("-") for flag, value in pairs):
        return None
    return {known[flag]: value for flag, value in pairs}


def parse_flags(
    parser: argparse.ArgumentParser, cls: type[Settings], argv: Sequence[str], without: Iterable[str] = ()
) -> dict[str, str]:
    """Give the parser a flag for each option of a settings class but those `without`; return those that a command line
    sets."""
    for name, opt in options_of(cls).items():
        if opt.secret or name in without:
            continue
        shown = "" if opt.default in (None, "", False, ()) else f" (default {opt.default})"
        allowed = "" if opt.kind in (SWITCH, TEXT, PATH) else f"; {opt.kind.allowed}"
        text = f"{opt.help}{allowed}{shown}{'; ' + ', '.join(opt.env) if opt.env else ''}".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        if opt.kind is SWITCH:
            parser.add_argument(flag, dest=name, action="store_const", const="1", help=text)
        else:
            parser.add_argument(flag, dest=name, metavar=name.rpartition("_")[2].upper(), help=text)
    return {name: value for name, value in vars(parser.parse_args(list(argv))).items() if value is not None}
