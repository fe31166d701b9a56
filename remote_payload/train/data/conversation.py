"""A conversation of the data: its messages, tool calls and tools, checked and in the one form that chat templates read.

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
from typing import Any

from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.data import Record
from remote_payload.train.errors import InputError

ROLES = ("system", "user", "assistant", "tool")
KEPT = ("name", "tool_call_id")  # of a message, besides role, content and tool_calls

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages and the tools that the assistant may call; ``place`` is the record's file and line."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None
    place: str

    def before(self, index: int) -> Conversation:
        """The conversation up to message ``index``, which is not in it."""
        return replace(self, messages=self.messages[:index])

    def changed(self, index: int, **fields: Any) -> Conversation:
        """The same with other ``fields`` in one message."""
        changed = {**self.messages[index], **fields}
        return replace(self, messages=[*self.messages[:index], changed, *self.messages[index + 1 :]])


def read_conversation(record: Record, field: str, system_prompt: str | None) -> Conversation:
    """The record's conversation, with ``system_prompt`` in front where it has none. Raises InputError with file and line."""
    given = record.field(field, list)
    messages = [_message(item, f"{record.place}: {field}: message {at}") for at, item in enumerate(given, start=1)]
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError(f"{record.place}: {field}: no message of the assistant, so nothing to learn")
    if system_prompt is not None and messages[0]["role"] != "system":
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
    """Raises InputError where the template leaves out a tool, a call, its arguments or what a tool answered.

    The model would learn that there was nothing: of a message that is a tool call, to end at once.
    """
    left_out = next(_left_out(tokenizer, conversation), None)
    if left_out:
        raise InputError(
            f"{conversation.place}: the model's chat template does not write {left_out}, so it could not be learnt; "
            "give settings.chat_template a template that does"
        )


def _left_out(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Iterator[str]:
    """What can be changed without a change in the text that the template writes, in words."""
    changes = list(_without_one(conversation))
    if not changes:
        return
    whole = render(tokenizer, conversation)
    for what, changed in changes:
        try:
            same = render(tokenizer, changed) == whole
        except InputError:
            same = False  # it was looked at, and missed
        if same:
            yield what


def _without_one(conversation: Conversation) -> Iterator[tuple[str, Conversation]]:
    """The conversation with one thing taken away, for each thing that has to do with tools."""
    if conversation.tools:
        yield "tools", replace(conversation, tools=None)
    for index, message in enumerate(conversation.messages):
        calls = message.get("tool_calls") or []
        for at, call in enumerate(calls):
            what = f"the tool call {call['function']['name']!r} of message {index + 1}"
            yield what, conversation.changed(index, tool_calls=[*calls[:at], *calls[at + 1 :]])
            if call["function"]["arguments"]:
                empty = {**call, "function": {**call["function"], "arguments": {}}}
                changed = [*calls[:at], empty, *calls[at + 1 :]]
                yield f"the arguments of {what}", conversation.changed(index, tool_calls=changed)
        if message["role"] == "tool" and message["content"]:
            yield f"what a tool answered (message {index + 1})", conversation.changed(index, content="")


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
    kept = {name: item[name] for name in KEPT if isinstance(item.get(name), str)}
    more = {"tool_calls": [_call(call, place) for call in calls]} if calls else {}
    return {"role": item["role"], "content": content, **kept, **more}


def _call(call: Any, place: str) -> dict[str, Any]:
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
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}


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
