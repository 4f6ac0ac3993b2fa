"""Settings: which layer wins, and one clear line for everything that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs import settings
from procs.environment import from_environment, read_env_file, refuse_unknown_variables
from procs.errors import ConfigError
from procs.flags import command_line, parse_flags, plain_flags
from procs.kinds import ADDRESS, BITRATE, NAME, SWITCH, Address, one_of, seconds, whole
from procs.settings import Layers, load, option
from scripts.suite_settings import Suite


class Toy(settings.Settings):
    """Settings of a test."""

    size: int = option(4, whole(2, 100, even=True), env=("PLANARIA_SIZE", "METABONK_SIZE"), help="how large")
    loud: bool = option(False, SWITCH, env=("PLANARIA_LOUD",), help="how loud")
    word: str = option("a", one_of("a", "b"), help="which")


def test_settings_never_change() -> None:
    toy, other = Toy(size=6), Toy().but(size=6)
    assert (toy, hash(toy)) == (other, hash(other)) and toy != Toy() and toy != object()
    assert (toy.size, toy.loud, Toy.word) == (6, False, "a")
    with pytest.raises(AttributeError, match="size: settings do not change"):
        toy.size = 8  # type: ignore[misc]
    with pytest.raises(TypeError, match="Toy has no field siez"):
        toy.but(siez=6)
    assert "hunter2" not in repr(Suite(password="hunter2", username="me")) and "me" in repr(Suite(username="me"))


@pytest.mark.parametrize(
    ("modules", "slow"),
    [
        ("procs.headless_agent.__main__", {"inspect", "dataclasses", "asyncio"}),  # PyAV, imported later, needs two
        ("procs.headless_agent.producer, procs.headless_agent.control", {"zmq", "msgspec"}),  # after the first frame
        ("procs.capture.__main__, procs.capture.fifo, procs.capture.framing", {"inspect", "dataclasses", "asyncio"}),
        ("procs.keeper.__main__", {"inspect", "dataclasses", "asyncio"}),
        ("scripts.cli", {"sqlalchemy", "aiohttp", "aiortc"}),  # for `make status`, which people and programs repeat
    ],
)
def test_what_serves_after_milliseconds_imports_nothing_slow(modules: str, slow: set[str]) -> None:
    program = f"import sys, {modules}; print({slow} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=settings.ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_each_layer_beats_those_below_it() -> None:
    layers: dict[str, Any] = {}
    assert load(Toy, Layers()).size == 4
    for strength, (layer, key) in enumerate(
        [("document", "size"), ("env_file", "METABONK_SIZE"), ("environ", "METABONK_SIZE"), ("flags", "size")], start=3
    ):
        layers[layer] = {key: str(2 * strength)}
        assert load(Toy, Layers(**layers)).size == 2 * strength


def test_our_variable_beats_the_published_one_and_an_empty_one_is_unset() -> None:
    assert load(Toy, Layers(environ={"METABONK_SIZE": "8", "PLANARIA_SIZE": "6"})).size == 6
    assert load(Toy, Layers(environ={"METABONK_SIZE": "8", "PLANARIA_SIZE": ""})).size == 8


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        (Layers(flags={"size": "3"}), ["--size", "'3'", "command line", "even whole number from 2 to 100"]),
        (Layers(environ={"METABONK_SIZE": "x"}), ["METABONK_SIZE", "'x'", "environment"]),
        (Layers(env_file={"PLANARIA_SIZE": "102"}), ["PLANARIA_SIZE", "'102'", ".env"]),
        (Layers(document={"size": [1]}, document_name="p.yaml"), ["size", "[1]", "p.yaml"]),
        (Layers(document={"word": "c"}, document_name="p.yaml"), ["word", "'c'", "one of a, b"]),
        (Layers(document={"siez": 4}, document_name="p.yaml"), ["'siez': unknown key in p.yaml", "did you mean size?"]),
        (Layers(document={"zzz": 4}, document_name="p.yaml"), ["'zzz'", "known keys: loud, size, word"]),
        (Layers(document={"loud": "maybe"}), ["loud", "1 or 0"]),
    ],
)
def test_a_wrong_value_is_one_line_that_names_everything(layers: Layers, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Toy, layers)
    text = str(caught.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(("word", "value"), [("true", True), ("Yes", True), ("1", True), ("off", False), ("0", False)])
def test_switches(word: str, value: bool) -> None:
    assert load(Toy, Layers(document={"loud": word})).loud is value


@pytest.mark.parametrize(
    ("text", "bits"), [("6M", 6_000_000), ("800k", 800_000), ("2.5m", 2_500_000), ("64000", 64_000)]
)
def test_bitrates(text: str, bits: int) -> None:
    assert BITRATE.parse(text) == bits


@pytest.mark.parametrize("text", ["abc", "", "-1", "0", "6G", "1e6", "6 M", "999999M", "nan", "9999", "٣M"])
def test_wrong_bitrates(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        BITRATE.parse(text)


@pytest.mark.parametrize(
    "text", ["a b", "a'b", 'a"b', "a#b", "a;b", "a$b", "a/b", "../a", "", "-a", ".a", "a" * 65, "ä", "a\nb"]
)
def test_wrong_names(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        NAME.parse(text)


def test_addresses() -> None:
    assert ADDRESS.parse("127.0.0.1:1984") == Address("127.0.0.1", 1984)
    assert str(ADDRESS.parse("[::1]:80")) == "[::1]:80"
    assert ADDRESS.parse("127.0.0.9:1").is_loopback
    assert not ADDRESS.parse("0.0.0.0:1").is_loopback
    for wrong in ("1984", ":1984", "127.0.0.1:0", "127.0.0.1:65536", "localhost:80", "127.0.0.1:x"):
        with pytest.raises(ValueError):  # noqa: PT011
            ADDRESS.parse(wrong)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "11", "x"])
def test_wrong_seconds(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        seconds(0, 10).parse(text)


def test_an_unknown_variable_of_ours_is_refused_and_others_are_left_alone() -> None:
    refuse_unknown_variables({"HOME": "/", "METABONK_ANYTHING": "1", "PLANARIA_RUN_DIR": "x"}, "environment")
    with pytest.raises(
        ConfigError, match=r"PLANARIA_RUNDIR: unknown variable \(environment\); did you mean PLANARIA_RUN_DIR"
    ):
        refuse_unknown_variables({"PLANARIA_RUNDIR": "x"}, "environment")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PLANARIA_FOO", "; .env.example lists ours"),
        ("PLANARIA_UDP", "; .env.example lists ours"),
        ("PLANARIA_LOGS", "; did you mean PLANARIA_LOG?"),
        ("PLANARIA_BITRATE", "; did you mean PLANARIA_HEADLESS_BITRATE?"),
    ],
)
def test_only_a_variable_that_is_near_beyond_its_prefix_is_suggested(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unknown_variables({name: "x"}, "environment")
    assert str(caught.value).endswith(said)


def test_a_wrong_log_style_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"PLANARIA_LOG='xml' \(environment\): must be one of json, text"):
        from_environment({"PLANARIA_LOG": "xml"}, tmp_path)


def test_a_secret_has_no_flag() -> None:
    parser = command_line("x", "x", "x")
    with pytest.raises(ConfigError, match="unrecognized arguments: --password"):
        parse_flags(parser, Suite, ["--password", "hunter2"])
    with pytest.raises(ConfigError) as caught:
        load(Suite, Layers(document={"password": ["hunter2"]}))
    assert "hunter2" not in str(caught.value)


@given(
    st.lists(st.sampled_from(["--size", "--loud", "--word", "--siz", "--size=4", "--", "-", "-3", "", "a", "4", "a b"]))
)
def test_plain_flags_are_what_argparse_makes_of_them(argv: list[str]) -> None:
    plain = plain_flags(Toy, argv)
    if plain is not None:
        assert plain == parse_flags(command_line("x", "x", "x"), Toy, argv)


def test_only_pairs_are_plain_flags() -> None:
    assert plain_flags(Toy, ["--size", "4", "--word", "b", "--size", "6"]) == {"size": "6", "word": "b"}
    assert plain_flags(Toy, []) == {}
    for other in (["--loud"], ["--help"], ["--size"], ["--size", "-3"], ["--size=4", "x"], ["4", "--size"]):
        assert plain_flags(Toy, other) is None
    assert plain_flags(Suite, ["--password", "hunter2"]) is None


def test_env_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert read_env_file(path) == {}
    path.write_text("# comment\nA=1\nexport B='two words'\nMETABONK_SIZE=\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "METABONK_SIZE": ""}


@pytest.mark.parametrize(
    "broken", ["A=1\nPASSWORD=hunter2\0\n", "A=1\nPASSWORD hunter2\n", "A=1\nPASSWORD='hunter2\n", "A=1\n=hunter2\n"]
)
def test_a_broken_env_file_names_the_line_and_no_secret(tmp_path: Path, broken: str) -> None:
    (tmp_path / ".env").write_text(broken)
    with pytest.raises(ConfigError, match="line 2") as caught:
        read_env_file(tmp_path / ".env")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_env_file_of_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_env_file(tmp_path / ".env")


def test_run_dir_is_ours_alone(tmp_path: Path) -> None:
    path = settings.run_dir({"PLANARIA_RUN_DIR": str(tmp_path / "deep/run")})
    assert path.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="PLANARIA_RUN_DIR="):
        settings.run_dir({"PLANARIA_RUN_DIR": str(tmp_path / "file/run")})


def test_no_error_shows_a_login_in_an_address() -> None:
    class Where(settings.Settings):
        at: str = option("", one_of("x"), env=("PLANARIA_AT",), help="where")

    with pytest.raises(ConfigError, match=r"PLANARIA_AT='wss://\*\*\*@host/x'"):
        load(Where, Layers({}, {"PLANARIA_AT": "wss://me:hunter2@host/x"}))
