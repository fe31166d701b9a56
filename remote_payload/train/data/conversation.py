"""A conversation in the data: its messages, tool calls and tools, checked, and in the form that chat templates read.

    {"messages": [{"role": "user", "content": "Rain in Bath?"},
                  {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"town": "Bath"}}}]},
                  {"role": "tool", "content": "dry"}, …],
     "tools": [{"type": "function", "function": {"name": "weather", …}}]}

Arguments may be JSON text, as OpenAI's API has them, and so may the tools; a message that is tool calls needs no content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.records import Record
from remote_payload.train.errors import InputError

ROLES = ("system", "user", "assistant", "tool")


class Function(TypedDict):
    """A function that the assistant calls, with its arguments by name."""

    name: str
    arguments: dict[str, Any]


class _ToolCall(TypedDict):
    type: str
    function: Function


class ToolCall(_ToolCall, total=False):
    """A call of a tool; ``id`` is what a tool's answer refers to."""

    id: str


class _Message(TypedDict):
    role: str  # one of ROLES
    content: str


class Message(_Message, total=False):
    """A message of a conversation. Only the assistant's have ``tool_calls``."""

    name: str
    tool_call_id: str
    tool_calls: list[ToolCall]


@dataclass(frozen=True)
class Conversation:
    """Messages and the tools that the assistant may call; ``place`` is the record's file and line."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None
    place: str

    def before(self, index: int) -> Conversation:
        """The conversation up to message ``index``, which is not in it."""
        return replace(self, messages=self.messages[:index])

    def with_message(self, index: int, message: Message) -> Conversation:
        """The same conversation with another message at ``index``."""
        return replace(self, messages=[*self.messages[:index], message, *self.messages[index + 1 :]])

    def with_calls(self, index: int, calls: list[ToolCall]) -> Conversation:
        """The same conversation with other tool calls in the message at ``index``."""
        return self.with_message(index, {**self.messages[index], "tool_calls": calls})


def read_conversation(record: Record, field: str, system_prompt: str | None) -> Conversation:
    """The record's conversation, with ``system_prompt`` in front where it has none; the assistant speaks in it.

    Raises InputError with file and line.
    """
    conversation = read_messages(record, field, system_prompt)
    if not any(message["role"] == "assistant" for message in conversation.messages):
        raise InputError(f"{record.place}: {field}: no message of the assistant, so nothing to learn")
    return conversation


def read_messages(record: Record, field: str, system_prompt: str | None) -> Conversation:
    """The same, where nobody needs to have answered yet."""
    given = record.field(field, list)
    messages = [_message(item, f"{record.place}: {field}: message {at}") for at, item in enumerate(given, start=1)]
    if system_prompt is not None and (not messages or messages[0]["role"] != "system"):
        messages = [{"role": "system", "content": system_prompt}, *messages]
    return Conversation(messages, _tools(record), record.place)


def render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, answering: bool = False) -> str:
    """The chat template's text, with the opening of the assistant's turn at its end if ``answering``.

    Raises InputError with the conversation's place when the template refuses it.
    """
    try:
        text = tokenizer.apply_chat_template(
            conversation.messages, tools=conversation.tools, tokenize=False, add_generation_prompt=answering
        )
    except Exception as error:  # a template is a program of somebody else's: it may fail in any way
        raise InputError(
            f"{conversation.place}: the model's chat template refuses this conversation: {error}"
        ) from None
    return str(text)


def check_all_is_written(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> None:
    """Raises InputError where the template leaves out the tools, a call, its arguments or a tool's answer.

    The model would learn from a text that lacks them: from a message that is only a tool call, to end its answer at once.
    """
    left_out = next(_left_out(tokenizer, conversation), None)
    if left_out:
        raise InputError(
            f"{conversation.place}: the model's chat template does not write {left_out}, so it could not be learnt; "
            "give settings.chat_template a template that does"
        )


def _left_out(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Iterator[str]:
    """Names each thing that can be taken away without a change in the text that the template writes."""
    changes = list(_without_one(conversation))
    if not changes:
        return
    whole = render(tokenizer, conversation)
    for what, changed in changes:
        try:
            same = render(tokenizer, changed) == whole
        except InputError:
            same = False  # the template reads it, since it fails without it
        if same:
            yield what


def _without_one(conversation: Conversation) -> Iterator[tuple[str, Conversation]]:
    """The conversation without one thing, and the name of that thing, for each thing that has to do with tools."""
    if conversation.tools:
        yield "tools", replace(conversation, tools=None)
    for index, message in enumerate(conversation.messages):
        calls = message.get("tool_calls") or []
        for at, call in enumerate(calls):
            what = f"the tool call {call['function']['name']!r} of message {index + 1}"
            yield what, conversation.with_calls(index, [*calls[:at], *calls[at + 1 :]])
            if call["function"]["arguments"]:
                empty: ToolCall = {**call, "function": {**call["function"], "arguments": {}}}
                yield f"the arguments of {what}", conversation.with_calls(index, [*calls[:at], empty, *calls[at + 1 :]])
        if message["role"] == "tool" and message["content"]:
            yield f"a tool's answer (message {index + 1})", conversation.with_message(index, {**message, "content": ""})


def _message(item: Any, place: str) -> Message:
    if not isinstance(item, dict) or item.get("role") not in ROLES:
        raise InputError(f'{place} is not {{"role": one of {", ".join(ROLES)}, "content": text}}')
    if item.get("function_call"):
        raise InputError(f"{place} has a function_call, the old form: write it as tool_calls")
    calls = item.get("tool_calls") or []
    if calls and (item["role"] != "assistant" or not isinstance(calls, list)):
        raise InputError(f"{place}: tool_calls are a list, in a message of the assistant")
    content = item.get("content")
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise InputError(f'{place} is not {{"role": one of {", ".join(ROLES)}, "content": text}}')
    message: Message = {"role": item["role"], "content": content}
    if isinstance(item.get("name"), str):
        message["name"] = item["name"]
    if isinstance(item.get("tool_call_id"), str):
        message["tool_call_id"] = item["tool_call_id"]
    if calls:
        message["tool_calls"] = [_call(call, place) for call in calls]
    return message


def _call(call: Any, place: str) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InputError(f'{place}: a tool call is {{"function": {{"name": text, "arguments": {{…}}}}}}')
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise InputError(f"{place}: the arguments of the call of {function['name']!r} are not JSON") from None
    if not isinstance(arguments or {}, dict):
        raise InputError(f"{place}: the arguments of the call of {function['name']!r} are not an object")
    wanted: Function = {"name": function["name"], "arguments": arguments or {}}
    if isinstance(call.get("id"), str):
        return {"id": call["id"], "type": "function", "function": wanted}
    return {"type": "function", "function": wanted}


def _tools(record: Record) -> list[dict[str, Any]] | None:
    tools = record.value.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise InputError(f"{record.place}: tools: this text is not JSON") from None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InputError(f"{record.place}: tools: expected a list of objects, one a tool")
    return tools
