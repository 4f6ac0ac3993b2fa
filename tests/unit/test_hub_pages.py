"""The page's files as they lie there: small, whole, and asking nobody but the hub."""

from __future__ import annotations

import re

import pytest

from procs.hub.pages import FOLDER, INDEX, read

MAX_BYTES = 150_000  # of all that everybody loads, uncompressed
MAX_LINES = 300  # of one module
SVG_NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which nobody ever asks for
NAMES = sorted(path.name for path in FOLDER.iterdir())
MODULES = [name for name in NAMES if name.endswith(".js")]


def text_of(name: str) -> str:
    """One file of the page."""
    return (FOLDER / name).read_text()


def imported(name: str) -> set[str]:
    """The modules that a module imports."""
    return set(re.findall(r'^(?:import|export)\b[^;]*?\bfrom "([^"]+)";', text_of(name), re.M))


def reached(first: set[str], pattern: str = "") -> set[str]:
    """These modules and all that they import; with `pattern`, also what they load later by it."""
    found, more = set(first), set(first)
    while more:
        texts = {name: imported(name) | set(re.findall(pattern, text_of(name)) if pattern else ()) for name in more}
        more = {path.removeprefix("./") for paths in texts.values() for path in paths} - found
        found |= more
    return found


AT_ONCE = reached({"main.js"})
LATER = reached({"main.js"}, r'\bimport\("([^"]+)"\)') - AT_ONCE  # for the few who open such a view


def test_all_of_it_is_small() -> None:
    assert sum(len(file.body) for name, file in read().items() if name not in LATER) < MAX_BYTES


def test_all_of_it_is_served() -> None:
    assert sorted(read()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_of_others(name: str) -> None:
    text = text_of(name).replace(SVG_NAMESPACE, "")
    assert not re.search(r"""\b(?:https?|wss?):|["'(]//|@import""", text)


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_imports_is_there(name: str) -> None:
    assert imported(name) <= {f"./{other}" for other in MODULES}


def test_every_module_is_needed_and_what_all_need_is_loaded_at_once() -> None:
    assert set(MODULES) == AT_ONCE | LATER
    preloaded = set(re.findall(r'rel="modulepreload" href="/page/([^"]+)"', text_of(INDEX)))
    assert preloaded | {"main.js"} == AT_ONCE, "a module that is not preloaded is found late, and one after the other"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short_and_makes_no_html_or_code_of_text(name: str) -> None:
    text = text_of(name)
    assert text.count("\n") < MAX_LINES
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|\.style\b|confirm\("
    )
    assert not re.search(forbidden, text)


def test_the_html_has_neither_scripts_nor_styles_of_its_own() -> None:
    text = text_of(INDEX)
    assert re.findall(r"<script[^>]*>[^<]*", text) == ['<script type="module" src="/page/main.js">']
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", text)
