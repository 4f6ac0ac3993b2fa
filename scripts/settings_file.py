"""planaria.yaml as plain text values: every scalar stays as it is written, and what it means is for settings.load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from procs.errors import ConfigError


class _Loader(yaml.BaseLoader):
    """YAML without its surprises: `yes`, `007` and `1:00` stay text, and a key stands once."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        text = super().construct_scalar(node)
        return "" if node.style is None and text in ("~", "null", "Null", "NULL") else text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                what = f"{key.value!r} stands twice" if isinstance(key, yaml.ScalarNode) else "a key must be plain text"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    """The file as nested dicts, lists and text. Raises ConfigError with the line that is wrong."""
    if not path.exists() and not must_exist:
        return {}
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path}: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    return mapping(document, str(path))


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A section that holds keys; an empty one is {}."""
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: must be 'key: value' lines, not {'a list' if isinstance(value, list) else 'text'}")
    return dict(value)
