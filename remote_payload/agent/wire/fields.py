"""Reads the fields of a JSON object that the laptop sent, each with its type checked once.

A field that is missing reads as null. A field of another type is an AgentError that names the field and its type, never its value:
it may be a secret.
"""

from typing import Any, Callable, Dict, List, Mapping, Optional, TypeVar

from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import check_run_id

Value = TypeVar("Value")
TYPE_NAMES = {
    type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object",
}  # fmt: skip


class Fields:
    """The fields of one JSON object. Every method raises AgentError ``kind`` for a field of another type."""

    def __init__(self, value: object, kind: str = "GpurunError", path: str = "") -> None:
        self._kind = kind
        self._path = path
        if not isinstance(value, dict):
            raise self._error(path or "the request", "an object", value)
        self._values: Mapping[str, Any] = value

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def optional_text(self, name: str) -> Optional[str]:
        """The text, None where the field is null."""
        return self._optional(name, "a text", is_text, str)

    def text(self, name: str) -> str:
        """The text, "" where the field is null."""
        return self.optional_text(name) or ""

    def flag(self, name: str, default: bool = False) -> bool:
        """The boolean, ``default`` where the field is null."""
        value: Optional[bool] = self._optional(name, "a boolean", lambda value: isinstance(value, bool), bool)
        return default if value is None else value

    def optional_whole(self, name: str) -> Optional[int]:
        """The whole number, None where the field is null."""
        return self._optional(name, "a whole number", is_whole, int)

    def whole(self, name: str) -> int:
        """The whole number, 0 where the field is null."""
        return self.optional_whole(name) or 0

    def optional_number(self, name: str) -> Optional[float]:
        """The number, None where the field is null."""
        return self._optional(name, "a number", is_number, float)

    def run_id(self, name: str = "run_id") -> str:
        """A run id. Raises AgentError for anything that could be more than the name of one folder."""
        try:
            return check_run_id(self._values.get(name))
        except ValueError as error:
            raise AgentError(self._kind, str(error)) from None

    def run_ids(self, name: str) -> List[str]:
        """A list of run ids, empty where the field is null."""
        try:
            return [check_run_id(text) for text in self.texts(name)]
        except ValueError as error:
            raise AgentError(self._kind, str(error)) from None

    def texts(self, name: str) -> List[str]:
        """The list of texts, empty where the field is null."""
        return self._list(name, "a text", is_text)

    def wholes(self, name: str) -> List[int]:
        """The list of whole numbers, empty where the field is null."""
        return self._list(name, "a whole number", is_whole)

    def text_by_name(self, name: str) -> Dict[str, str]:
        """The object whose values are texts, empty where the field is null."""
        value = self.mapping(name)
        for key, each in value.items():
            if not is_text(each):
                raise self._error("%s.%s" % (self._at(name), key), "a text", each)
        return value

    def mapping(self, name: str) -> Dict[str, Any]:
        """An object whose fields are not checked, empty where the field is null."""
        found: Optional[Dict[str, Any]] = self._optional(name, "an object", lambda value: isinstance(value, dict), dict)
        return found or {}

    def optional_fields(self, name: str) -> "Optional[Fields]":
        """The fields of an object inside this one, None where the field is null or has none."""
        value = self.mapping(name)
        return Fields(value, self._kind, self._at(name)) if value else None

    def fields(self, name: str) -> "Fields":
        """The fields of an object inside this one, all null where the field is null."""
        return Fields(self.mapping(name), self._kind, self._at(name))

    def list_of_fields(self, name: str) -> "List[Fields]":
        """The fields of each object of a list, empty where the field is null."""
        items = self._list(name, "an object", lambda value: isinstance(value, dict))
        return [Fields(each, self._kind, "%s[%d]" % (self._at(name), number)) for number, each in enumerate(items)]

    def is_a(self, name: str, kind: type) -> bool:
        """Whether the field has this type, for a field that may have several."""
        return type(self._values.get(name)) is kind

    def _optional(
        self, name: str, wanted: str, fits: Callable[[Any], bool], make: Callable[[Any], Value]
    ) -> Optional[Value]:
        value = self._values.get(name)
        if value is None:
            return None
        if not fits(value):
            raise self._error(self._at(name), wanted, value)
        return make(value)

    def _list(self, name: str, wanted: str, fits: Callable[[Any], bool]) -> List[Any]:
        values = self._values.get(name)
        if values is None:
            return []
        if not isinstance(values, list):
            raise self._error(self._at(name), "a list", values)
        for number, each in enumerate(values):
            if not fits(each):
                raise self._error("%s[%d]" % (self._at(name), number), wanted, each)
        return values

    def _at(self, name: str) -> str:
        return "%s.%s" % (self._path, name) if self._path else name

    def _error(self, path: str, wanted: str, value: object) -> AgentError:
        found = TYPE_NAMES.get(type(value), "something else")
        return AgentError(self._kind, "%s in the request is %s, and not %s" % (path, found, wanted))


def is_text(value: object) -> bool:
    """Whether this is a text."""
    return isinstance(value, str)


def is_whole(value: object) -> bool:
    """Whether this is a whole number, and no boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether this is a finite number, and no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
