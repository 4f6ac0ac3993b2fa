"""Who imports whom: a room imports the floor, never another room; the floor only what is above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from procs.settings import ROOT

# In this order: each may import only those before it.
FLOOR = [
    *("errors", "prctl", "proc", "backoff", "kinds", "settings", "environment", "flags"),
    *("pipes", "messages", "figures", "log", "store", "locks", "journal", "unanswered"),
    *("bus", "rpc", "line", "life", "brood", "wire", "streams", "carrier", "media", "agent"),
]
ONLY_FROM_MAIN = {"life", "brood"}
# The loops of these two name the type of what they beat.
EXCEPTIONS = {("headless_agent/producer.py", "life"), ("keeper/keeper.py", "life")}


def imports_of(path: Path) -> list[str]:
    """Dotted names that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write imports whole"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def place_of(dotted: str) -> str:
    """The floor file or room of procs.X.Y."""
    return dotted.split(".")[1] if dotted.startswith("procs.") else ""


def wrong_arrows(procs: Path) -> list[str]:
    """Every import that goes the wrong way."""
    wrong = []
    for path in sorted(procs.rglob("*.py")):
        name = path.relative_to(procs)
        here = name.parts[0].removesuffix(".py")
        for dotted in imports_of(path):
            if dotted.split(".")[0] in ("scripts", "tests"):
                wrong.append(f"{name} imports {dotted}")
            there = place_of(dotted)
            if not there or there == here or here == "__init__":
                continue
            if here in FLOOR:
                allowed = FLOOR[: FLOOR.index(here)]
            else:
                allowed = [f for f in FLOOR if f not in ONLY_FROM_MAIN or name.name == "__main__.py"]
                allowed += [place for file, place in EXCEPTIONS if file == str(name)]
            if there not in allowed:
                wrong.append(f"{name} imports {dotted}")
    return wrong


def test_every_arrow_goes_one_way() -> None:
    assert wrong_arrows(ROOT / "procs") == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("errors.py", "from procs import log"),
        ("room/thing.py", "from procs.other import thing"),
        ("room/thing.py", "def f():\n    import procs.life"),
        ("bus.py", "import scripts.cli"),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert len(wrong_arrows(tmp_path)) == 1


def test_every_room_has_its_parts() -> None:
    for room in [
        p for p in (ROOT / "procs").iterdir() if p.is_dir() and p.name not in FLOOR and p.name != "__pycache__"
    ]:
        main = room / "__main__.py"
        assert main.is_file(), f"{room.name} has no __main__.py"
        lines = [line for line in main.read_text().splitlines() if line.strip()]
        assert len(lines) <= 20, f"{main}: settings, then life.run; no more"
