"""Which variables make `make up` restart what runs: all that a process of the suite reads, and no other."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from procs import settings
from procs.environment import OUR_ENV
from procs.settings import ROOT, Settings
from scripts import roles
from scripts.fingerprint import NOT_READ, fingerprint, variables
from scripts.plan import Plan, load_plan

EVERYTHING = " ".join(sorted(roles.PROGRAMS))
INTERNAL = {"PLANARIA_FOREGROUND", "PLANARIA_PARENT", "PLANARIA_SUITE"}


def declared() -> set[str]:
    """The variables of every settings class that a process has, found in its folder: one that is new is found, too."""
    files = [*ROOT.glob("procs/*/options.py"), *ROOT.glob("procs/*/settings.py"), *ROOT.glob("procs/*/network.py")]
    modules = [importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts)) for file in files]
    classes = {its for module in modules for its in vars(module).values() if isinstance(its, type)}
    mine = {cls for cls in classes if issubclass(cls, Settings) and cls is not Settings}
    assert len(mine) > 10
    return {name for cls in mine for option in settings.options_of(cls).values() for name in option.env}


def explained() -> set[str]:
    """The variables of .env.example."""
    return set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.M))


def plan(folder: Path, chosen: str = EVERYTHING) -> Plan:
    """With these roles and no variable but that of the roles."""
    (folder / "supervisord.conf").touch()
    (folder / "planaria.yaml").write_text("{}")
    return load_plan(folder, {"PLANARIA_ROLES": chosen})


def test_every_variable_that_a_process_reads_counts(tmp_path: Path) -> None:
    names = (OUR_ENV | declared() | explained()) - INTERNAL - {*NOT_READ}
    assert {"KYUTAI_LLM_URL", "NEWSAPI_API_KEY", "HOST", "PORT", "LOG_LEVEL", "REMOTE_DEVICES_CONFIG"} <= names
    found = plan(tmp_path)
    counted = variables(dataclasses.replace(found, environment=dict.fromkeys(names, "x")))
    assert not names - counted.keys()


@pytest.mark.parametrize(
    "variable", ["KYUTAI_LLM_URL", "PORT", "LOG_LEVEL", "REMOTE_DEVICES_CONFIG", "NEWSAPI_API_KEY", "PLANARIA_LOG"]
)
def test_set_changed_and_unset_are_changes(tmp_path: Path, variable: str) -> None:
    found = plan(tmp_path)
    words = [
        fingerprint(tmp_path, dataclasses.replace(found, environment=found.environment | given))
        for given in ({}, {variable: "one"}, {variable: "other"}, {})
    ]
    assert len({*words}) == 3 and words[0] == words[3]


def test_a_name_that_others_use_is_no_change_where_nobody_here_reads_it(tmp_path: Path) -> None:
    """HOST is set by many a shell, and is the name of its machine."""
    found = plan(tmp_path, "hub device streams")
    assert "HOST" not in variables(dataclasses.replace(found, environment={"HOST": "box", "PORT": "3000"}))
