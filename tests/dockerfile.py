"""Reads a Dockerfile as far as ours goes: stages of instructions, in shell or in exec form; no variables in them but
for the shell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction: its name in capitals, and the rest of it on one line."""

    name: str
    rest: str

    def command(self) -> list[str]:
        """The words that RUN, ENTRYPOINT, CMD or HEALTHCHECK execute."""
        text = self.rest.partition("CMD ")[2] if self.name == "HEALTHCHECK" else self.rest
        return list(json.loads(text)) if text.startswith("[") else ["/bin/sh", "-c", text]

    def words(self) -> list[str]:
        """The words of COPY, ENV, USER, WORKDIR without their --flags."""
        return [word for word in self.rest.split() if not word.startswith("--")]


def stages(file: Path) -> list[list[Instruction]]:
    """The stages in the order written, each from its FROM on."""
    lines = [line for line in file.read_text().splitlines() if not re.match(r"\s*#", line)]
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            if name.upper() == "FROM":
                found.append([])
            found[-1].append(Instruction(name.upper(), rest.strip()))
    return found


def last(stage: list[Instruction], name: str) -> Instruction:
    """The instruction of this name that counts."""
    return [instruction for instruction in stage if instruction.name == name][-1]
