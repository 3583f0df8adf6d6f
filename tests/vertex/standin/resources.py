"""What every kind of resource shares: names, labels, lists, bodies checked by the real messages."""

from __future__ import annotations

import copy
import json
import random
import re
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import Request

from tests.vertex.standin.errors import ApiError, missing

Resource = dict[str, Any]

_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_TERM = re.compile(
    r"\s*([A-Za-z_][\w.-]*)\s*(!=|>=|<=|=|:|>|<)\s*(\"(?:[^\"\\]|\\.)*\"|'[^']*'|\S+)\s*"
)
_MOST_PAGE = 1_000


def now() -> str:
    """The time, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_number() -> str:
    """A numeric identifier as Vertex makes them."""
    return str(random.randrange(10**17, 10**18))


def camel(path: str) -> str:
    """``create_time`` as ``createTime``."""
    head, *rest = path.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that Vertex refuses.

    Raises:
        ApiError: There are too many, or one has a character or a length that is not allowed.
    """
    if len(labels) > 64:
        raise ApiError(400, f"{len(labels)} labels: at most 64 are allowed.")
    for key, value in labels.items():
        for part in (key, value):
            if not _LABEL.fullmatch(part) or not key:
                raise ApiError(
                    400,
                    f"Invalid label {key!r}: {value!r}: keys and values may hold at most 63 "
                    "lowercase letters, digits, underscores and dashes.",
                )


async def read_json(request: Request) -> dict[str, Any]:
    """The body of a request, an object.

    Raises:
        ApiError: It is not one.
    """
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise ApiError(400, "Invalid JSON payload received.") from error
    if not isinstance(body, dict):
        raise ApiError(400, "Invalid JSON payload received: not an object.")
    return body


def as_message(kind: str, body: Mapping[str, Any], version: str = "v1") -> Resource:
    """A body read into the real message and written back: camelCase, enumerations by name.

    Args:
        kind: Name of the message, like ``CustomJob``.
        body: As JSON, in either spelling of the names; enumerations by number or name.
        version: Of the API: fields that only ``v1beta1`` knows are passed over there.

    Raises:
        ApiError: A field is unknown or has a wrong value.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from google.cloud.aiplatform_v1 import types
    from google.protobuf import json_format

    message = getattr(types, kind).pb()()
    try:
        json_format.ParseDict(dict(body), message, ignore_unknown_fields=version != "v1")
    except json_format.ParseError as error:
        reason = re.sub(r"'[^']{80,}'", "'...'", str(error))[:400]
        raise ApiError(400, f"Invalid JSON payload received. {reason}") from None
    read: Resource = json_format.MessageToDict(message)
    return read


def _lookup(resource: Mapping[str, Any], field: str) -> Any:
    value: Any = resource
    if field == "pipeline_name":
        field = "pipelineSpec.pipelineInfo.name"
    head, *rest = field.split(".", 1) if field.startswith("labels.") else [field]
    for part in [camel(head), *rest] if rest else [camel(p) for p in field.split(".")]:
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _sortable(field: str, resource: Resource) -> str:
    return str(_lookup(resource, field) or "")


def matches(resource: Mapping[str, Any], text: str, fields: Iterable[str]) -> bool:
    """Whether a resource passes a list filter: terms joined by ``AND``.

    Args:
        resource: To look at.
        text: The filter; empty passes all.
        fields: Which may be filtered on, in snake case; ``labels.*`` always may.

    Raises:
        ApiError: The filter cannot be read or names another field.
    """
    allowed = {camel(field) for field in fields}
    at = 0
    passed = True
    while at < len(text.rstrip()):
        found = _TERM.match(text, at)
        if found is None:
            raise ApiError(400, f"Invalid filter: {text[at : at + 100]!r}")
        field, operator, raw = found.groups()
        at = found.end()
        joined = re.compile(r"AND\s+", re.IGNORECASE).match(text, at)
        if joined:
            at = joined.end()
        elif at < len(text.rstrip()):
            raise ApiError(400, f"Invalid filter: terms are joined by AND: {text[at:][:100]!r}")
        if not field.startswith("labels.") and camel(field) not in allowed:
            raise ApiError(400, f"Invalid filter: unknown field {field!r}")
        wanted = raw[1:-1] if raw[0] in "\"'" else raw
        passed = _compare(_lookup(resource, field), operator, wanted) and passed
    return passed


def _compare(value: Any, operator: str, wanted: str) -> bool:
    if operator in ("=", ":") and wanted == "*":
        return value is not None
    text = "" if value is None else str(value)
    if operator in ("=", "!=", ":"):
        pattern = ".*".join(re.escape(part) for part in wanted.split("*"))
        return bool(re.fullmatch(pattern, text, re.DOTALL)) != (operator == "!=")
    return {">": text > wanted, "<": text < wanted, ">=": text >= wanted, "<=": text <= wanted}[
        operator
    ]


def masked(resource: Mapping[str, Any], mask: str) -> Resource:
    """The named fields of a resource only; all where the mask is empty."""
    if not mask:
        return copy.deepcopy(dict(resource))
    answer: Resource = {"name": resource["name"]}
    for path in mask.split(","):
        source: Any = resource
        target = answer
        parts = [camel(part) for part in path.strip().split(".")]
        for depth, part in enumerate(parts):
            if not isinstance(source, Mapping) or part not in source:
                break
            source = source[part]
            if depth == len(parts) - 1:
                target[part] = copy.deepcopy(source)
            else:
                target = target.setdefault(part, {})
    return answer


def page(
    key: str, resources: Iterable[Resource], query: Mapping[str, str], fields: Iterable[str]
) -> Resource:
    """One page of a list, as the query asks for it.

    Args:
        key: Of the list in the answer, like ``pipelineJobs``.
        resources: All of them.
        query: ``filter``, ``orderBy``, ``pageSize``, ``pageToken``, ``readMask``.
        fields: That may be filtered on.

    Raises:
        ApiError: The query is wrong.
    """
    fields = list(fields)
    found = [r for r in resources if matches(r, query.get("filter", ""), fields)]
    found.sort(key=lambda r: r.get("createTime", ""), reverse=True)
    for term in reversed([t for t in query.get("orderBy", "").split(",") if t.strip()]):
        name, *direction = term.split()
        if direction not in ([], ["desc"], ["asc"]):
            raise ApiError(400, f"Invalid orderBy: {term!r}")
        found.sort(key=partial(_sortable, name), reverse=direction == ["desc"])
    try:
        size = int(query.get("pageSize") or 0) or 100
        start = int(query.get("pageToken") or 0)
    except ValueError as error:
        raise ApiError(400, "Invalid pageSize or pageToken.") from error
    if size < 0 or start < 0:
        raise ApiError(400, "Invalid pageSize or pageToken.")
    end = start + min(size, _MOST_PAGE)
    answer: Resource = {key: [masked(r, query.get("readMask", "")) for r in found[start:end]]}
    if end < len(found):
        answer["nextPageToken"] = str(end)
    return answer


def patch(resource: Resource, change: Mapping[str, Any], mask: str, allowed: Iterable[str]) -> None:
    """Set the masked fields of a resource to those of a change; absent ones are cleared.

    Raises:
        ApiError: The mask is empty or names a field that may not be changed.
    """
    names = [camel(part.strip()) for part in mask.split(",") if part.strip()]
    if not names:
        raise ApiError(400, "updateMask is required.")
    unknown = sorted(set(names) - {camel(name) for name in allowed})
    if unknown:
        raise ApiError(400, f"updateMask names fields that cannot be updated: {unknown}")
    if "labels" in names:
        check_labels(change.get("labels", {}))
    for name in names:
        if name in change:
            resource[name] = change[name]
        else:
            resource.pop(name, None)
    resource["updateTime"] = now()


class Collection(dict[str, Resource]):
    """Resources of one kind by their identifier.

    Args:
        parent: Name of the location.
        kind: Like ``pipelineJobs``.
    """

    def __init__(self, parent: str, kind: str) -> None:
        super().__init__()
        self.parent = parent
        self.kind = kind

    def name(self, identifier: str) -> str:
        """The full name of a resource."""
        return f"{self.parent}/{self.kind}/{identifier}"

    def found(self, identifier: str) -> Resource:
        """A resource.

        Raises:
            ApiError: There is none.
        """
        if identifier not in self:
            raise missing(self.name(identifier))
        return self[identifier]
