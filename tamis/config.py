"""Strict configuration files: load, override, and say plainly what is wrong."""

from __future__ import annotations

import copy
import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Strict as StrictMode
from pydantic_core import ErrorDetails, PydanticCustomError

from tamis.errors import ConfigError, UsageError


class Strict(BaseModel):
    """Base of every configuration model: frozen, no unknown key, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Item = TypeVar("Item")
ConfigT = TypeVar("ConfigT", bound=Strict)

Items = Annotated[tuple[Item, ...], StrictMode(False)]
"""A list in the file, a tuple in the model (the one conversion that strict mode has to allow)."""


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where 5e-5 is text; people mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, of plain types only."""
    return yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader


def wrong(key: str, given: object, allowed: str) -> PydanticCustomError:
    """The error for a validator over several keys to raise: which key, what is allowed."""
    context = {"key": key, "given": given, "allowed": allowed}
    return PydanticCustomError("wrong", "{allowed}", context)


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        path: The file.
        name: What to call it in errors.

    Raises:
        ConfigError: The file cannot be read, is not YAML or not a mapping.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(name, "", str(path), f"a readable UTF-8 file ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the file"
        raise ConfigError(name, where, getattr(error, "problem", "?"), "valid YAML") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(name, "", str(error), "YAML of plain values") from None
    if not isinstance(data, dict):
        raise ConfigError(name, "", data, "a mapping of keys to values")
    return data


def override(data: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply ``key.path=value`` settings to a copy of ``data``; values are read as YAML.

    Raises:
        UsageError: A setting has no ``=``, or its path runs through something that has no keys.
    """
    result = copy.deepcopy(data)
    for setting in settings:
        path, equals, raw = setting.partition("=")
        if not equals or not path:
            raise UsageError(f"--set: given {setting!r}; allowed: key=value, such as seed=7")
        node: Any = result
        *parents, last = path.split(".")
        try:
            for key in parents:
                node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
            value = parse_yaml(raw)
            if isinstance(node, list):
                node[int(last)] = value
            elif isinstance(node, dict):
                node[last] = value
            else:
                raise TypeError
        except (ValueError, IndexError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
            raise UsageError(
                f"--set: given {setting!r}; allowed: a path of keys (and list positions) "
                f"that exists, then = and a YAML value"
            ) from None
    return result


def validate(model: type[ConfigT], data: Mapping[str, Any], name: str) -> ConfigT:
    """Build a configuration model from the content of a file.

    Validation goes through JSON, so that strict mode accepts lists for tuples.

    Raises:
        ConfigError: The first thing that is wrong, with what would have been allowed.
    """
    try:
        return model.model_validate_json(_as_json(data, name))
    except ValidationError as error:
        raise _as_ours(model, error.errors()[0], name) from None


def problems(model: type[Strict], data: Mapping[str, Any], name: str) -> list[ConfigError]:
    """Everything that is wrong with the content of a file, where ``validate`` tells the first.

    Raises:
        ConfigError: The content is no plain values.
    """
    try:
        model.model_validate_json(_as_json(data, name))
    except ValidationError as error:
        return [_as_ours(model, each, name) for each in error.errors()]
    return []


def _as_json(data: Mapping[str, Any], name: str) -> str:
    try:
        return json.dumps(data, default=_date)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(name, "", type(error).__name__, "plain values under text keys") from None


def _date(value: object) -> str:
    """Dates are text in our files; nothing else that only YAML knows is."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError


def _as_ours(model: type[BaseModel], error: ErrorDetails, name: str) -> ConfigError:
    location = list(error["loc"])
    allowed = _allowed(model, error, location)
    path = _without_tags(model, location)
    given = "nothing" if error["type"] == "missing" else error["input"]
    if error["type"] == "extra_forbidden":
        given = str(location[-1])
    elif error["type"] == "family":
        path = [*path, "family"]
        given = given.get("family") if isinstance(given, dict) else given
    elif error["type"] == "wrong":
        path, given = [*path, error["ctx"]["key"]], error["ctx"]["given"]
    return ConfigError(name, ".".join(map(str, path)), given, allowed)


_PLAIN = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}
"""What pydantic's type errors mean to somebody who writes YAML."""


def _allowed(model: type[BaseModel], error: ErrorDetails, location: list[Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        keys = _keys_at(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), keys, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"one of the keys {', '.join(keys)}{hint}"
    if error["type"] == "wrong":
        return str(context["allowed"])
    if error["type"] == "missing":
        return "a value; this key is required"
    if error["type"] == "union_tag_not_found":
        return f"a mapping with the key {context['discriminator']}"
    if error["type"] in _PLAIN:
        return _PLAIN[error["type"]]
    if "expected_tags" in context:
        return f"a {context.get('discriminator', 'kind')} of {context['expected_tags']}"
    if "expected" in context:
        return str(context["expected"])
    message = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


class _Entries:
    """Stands for a mapping of free keys, between its field and the models of its values."""

    model_fields: ClassVar[dict[str, Any]] = {}

    def __init__(self, values: list[Any]) -> None:
        self.values = values


def _children(annotation: Any) -> list[Any]:
    """The model classes that an annotation may hold, through unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _children(typing.get_args(annotation)[0])
    if origin is dict:
        return [_Entries(_children(typing.get_args(annotation)[1]))]
    if origin in (typing.Union, types.UnionType, tuple, list):
        return [child for arg in typing.get_args(annotation) for child in _children(arg)]
    return []


def _step(models: list[Any], part: Any) -> list[Any]:
    """The models one step of a location further on: a key, a list position or a union's tag."""
    tagged = [m for m in models if part in _tags(m)]
    if tagged and len(models) > 1:
        return tagged
    if isinstance(part, int):
        return models
    fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
    entries = [child for m in models if isinstance(m, _Entries) for child in m.values]
    return entries + [child for annotation in fields for child in _children(annotation)]


def _tags(model: Any) -> tuple[Any, ...]:
    """Values of the literal ``kind`` or ``family`` by which a union tells its members apart."""
    kind = model.model_fields.get("kind") or model.model_fields.get("family")
    return typing.get_args(kind.annotation) if kind is not None else ()


def _keys_at(model: type[BaseModel], location: list[Any]) -> list[str]:
    models: list[Any] = [model]
    for part in location:
        models = _step(models, part)
    return sorted({key for m in models for key in m.model_fields})


def _without_tags(model: type[BaseModel], location: list[Any]) -> list[Any]:
    """The location as the user wrote it: pydantic adds the tag of a union's member."""
    models: list[Any] = [model]
    kept: list[Any] = []
    for part in location:
        known = [key for m in models for key in m.model_fields]
        tagged = any(part in _tags(m) or isinstance(m, _Entries) for m in models)
        unknown_key = bool(models) and part is location[-1]
        if isinstance(part, str) and part not in known and not tagged and not unknown_key:
            continue  # the branch of a plain union
        # Once a member is chosen, a key that is called like its tag is a key again.
        if not (len(models) > 1 and any(part in _tags(m) for m in models)):
            kept.append(part)
        models = _step(models, part)
    return kept
