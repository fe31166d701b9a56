"""A chat template in Ollama's terms: the text before and after each kind of message, found by rendering, and proven by rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.chat import PLACEHOLDER
from remote_payload.train.model.model_facts import ModelFacts
from runner.local_model.messages import PromptForm
from runner.local_model.worker import Refused

Message = dict[str, str]
# Texts that no template has, for each place of a conversation.
SYSTEM, ASKED, ANSWERED, AGAIN, ANSWERED_AGAIN, LAST = (f"<<{letter}-7f3a>>" for letter in "sauvwx")
WHOLE_PROMPT = "{{ .Prompt }}"


@dataclass(frozen=True)
class Pieces:
    """A conversation is ``start``, its messages each between the two texts of its role, and ``answer``, after which the model writes.

    ``default`` is the system message of a conversation that has none.
    """

    start: str
    around: dict[str, tuple[str, str]]
    answer: str
    default: str | None

    def written(self, messages: Sequence[Message]) -> str:
        """The text of a conversation."""
        if self.default is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default}, *messages]
        parts = [self.around[each["role"]][0] + each["content"] + self.around[each["role"]][1] for each in messages]
        return self.start + "".join(parts) + self.answer

    def in_go(self, start: str) -> str:
        """The same as a template of Go's ``text/template``, as Ollama has it, with another ``start``."""
        roles = [
            f'{{{{ {"else if" if index else "if"} eq .Role "{role}" }}}}{_literal(before)}{{{{ .Content }}}}{_literal(after)}'
            for index, (role, (before, after)) in enumerate(self.around.items())
        ]
        each = "".join(roles) + "{{ end }}"
        return f"{_literal(start)}{{{{ range .Messages }}}}{each}{{{{ end }}}}{_literal(self.answer)}"


def prompt_form(tokenizer: PreTrainedTokenizerBase, facts: ModelFacts | None, ends: Sequence[int]) -> PromptForm:
    """How the model is asked, for a Modelfile. Raises Refused for a chat template that is more than messages one after the other."""
    about: Any = facts or {"chat": bool(tokenizer.chat_template)}
    stop = tuple(dict.fromkeys(str(tokenizer.decode([token])) for token in ends))
    if not about.get("chat"):
        return PromptForm(_completion(about.get("prompt_template")), "", stop)
    pieces = find_pieces(tokenizer)
    system = about.get("system_prompt") or pieces.default or ""
    if system and "system" not in pieces.around:
        raise Refused("its chat template has no place for the system message that it was trained with")
    return PromptForm(pieces.in_go(_without_first_token(pieces.start, tokenizer)), system, stop)


def find_pieces(tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """The pieces of the tokenizer's chat template. Raises Refused where conversations made of them are not what it renders."""
    refused = Refused(
        "its chat template is more than messages one after the other, so it cannot be written for Ollama",
        "Leave --ollama out: the GGUF file has the template itself, which llama.cpp's own server reads.",
    )
    try:
        pieces = _pieces(tokenizer)
        for messages in _conversations("system" in pieces.around):
            if pieces.written(messages) != _render(tokenizer, messages):
                raise refused
    except Refused:
        raise
    except Exception:  # a template may raise whatever it likes for a conversation that it does not know
        raise refused from None
    return pieces


def _pieces(tokenizer: PreTrainedTokenizerBase) -> Pieces:
    user, answer, again = _message("user", ASKED), _message("assistant", ANSWERED), _message("user", AGAIN)
    before, after = _render(tokenizer, [user]).split(ASKED)
    _, after_user = _render(tokenizer, [user], answered=True).split(ASKED)
    _, middle, back, _ = _split(_render(tokenizer, [user, answer, again]), ASKED, ANSWERED, AGAIN)
    after_answer = _render(tokenizer, [user, answer], answered=True).split(ANSWERED)[1]
    before_user = back.removeprefix(after_answer)
    around = {
        "user": (before_user, after_user),
        "assistant": (middle.removeprefix(after_user), after_answer),
    }
    start, default = before.removesuffix(before_user), None
    try:
        first, between, _ = _split(_render(tokenizer, [_message("system", SYSTEM), user]), SYSTEM, ASKED)
    except Exception:  # it has no place for a system message, and says so or leaves it out
        return Pieces(start, around, after.removeprefix(after_user), None)
    after_system = between.removesuffix(before_user)
    if not first.startswith(start):  # a conversation without a system message gets one
        default = start.removeprefix(first).removesuffix(after_system)
        start = str(tokenizer.bos_token) if tokenizer.bos_token and first.startswith(str(tokenizer.bos_token)) else ""
    around = {"system": (first.removeprefix(start), after_system), **around}
    return Pieces(start, around, after.removeprefix(after_user), default)


def _conversations(system: bool) -> list[list[Message]]:
    """Of several lengths, with and without a system message, and with texts that a template might treat in another way."""
    turns = [
        _message("user", ASKED), _message("assistant", ANSWERED), _message("user", "two\nlines"),
        _message("assistant", ANSWERED_AGAIN), _message("user", LAST),
    ]  # fmt: skip
    plain = [turns[:1], turns[:3], turns]
    return [*plain, *([_message("system", SYSTEM), *each] for each in plain if system)]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, answered: bool = False) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=not answered))


def _split(text: str, *marks: str) -> list[str]:
    """The texts before, between and after the marks. Raises ValueError where one of them is not there once."""
    parts = []
    for mark in marks:
        part, text = text.split(mark)
        parts.append(part)
    return [*parts, text]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _without_first_token(start: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Without the text of the first token where every text gets it anyway: Ollama would write it twice."""
    first = tokenizer("a")["input_ids"][0]
    adds = tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id
    return start.removeprefix(str(tokenizer.bos_token)) if adds else start


def _completion(template: str | None) -> str:
    """A template of one field, with the prompt in its place; where there are more, or none, the prompt is the whole text."""
    if template is None or len(PLACEHOLDER.findall(template)) != 1:
        return WHOLE_PROMPT
    before, _, after = PLACEHOLDER.split(template)
    return _literal(before) + WHOLE_PROMPT + _literal(after)


def _literal(text: str) -> str:
    """Text that a template of Go's gives as it is."""
    return text.replace("{{", '{{ "{{" }}')
