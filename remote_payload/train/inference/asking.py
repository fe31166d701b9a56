"""How a language model is asked: a prompt, or a record of the data, in the form that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from remote_payload.settings.generation import Answering
from remote_payload.train.data.chat import PLACEHOLDER, fill_template, prompt_ids
from remote_payload.train.data.conversation import Conversation, Message, read_messages, render
from remote_payload.train.data.records import Record
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.continuations import with_room
from remote_payload.train.evaluation.generation import Answer, Sampling, generate
from remote_payload.train.inference.target import Target
from remote_payload.train.model.model_facts import Prompting


def as_asked(tokenizer: PreTrainedTokenizerBase, prompt: str, prompting: Prompting) -> tuple[str, bool]:
    """The prompt inside the chat template or the prompt template of training, and whether it was the chat template."""
    if prompting.get("chat"):
        system = prompting.get("system_prompt")
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        asked = Conversation([*messages, {"role": "user", "content": prompt}], None, "the prompt")
        return render(tokenizer, asked, answering=True), True
    template = prompting.get("prompt_template") or ""
    if len(set(PLACEHOLDER.findall(template))) == 1:
        return PLACEHOLDER.sub(lambda _: prompt, template), False
    return prompt, False


def prompt_of(target: Target, record: Record, field: str | None) -> str:
    """The text that the model is asked for a record, all templates applied.

    ``field`` names the prompt, or with a chat template messages. By itself it is ``messages`` where the model chats and the record has
    them (a last answer of the assistant is left out), the fields of the prompt template of training, or ``prompt``. Raises InputError
    with file and line.
    """
    template = target.prompting.get("prompt_template") or ""
    name = field or ("messages" if target.prompting.get("chat") and "messages" in record.value else "prompt")
    if target.prompting.get("chat") and isinstance(record.value.get(name), list):
        conversation = read_messages(record, name, target.prompting.get("system_prompt"))
        messages = conversation.messages
        while messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        if not messages:
            raise InputError(f"{record.place}: {name}: nobody asks anything")
        return render(target.tokenizer, conversation.before(len(messages)), answering=True)
    if field is None and template and not target.prompting.get("chat"):
        return fill_template(template, record)
    return as_asked(target.tokenizer, record.field(name), target.prompting)[0]


def told_to(target: Target, answering: Answering) -> Target:
    """The target, asked with the system message that ``answering`` names; an empty one is none. Without one it stays that of training."""
    if answering.system_prompt is None:
        return target
    return replace(target, prompting={**target.prompting, "system_prompt": answering.system_prompt})


def prompt_tokens(target: Target, text: str) -> list[int]:
    """The tokens of a text of ``prompt_of`` or ``as_asked``, with room for an answer after them."""
    return with_room(target.model, prompt_ids(target.tokenizer, text, not target.prompting.get("chat")))


def answers(target: Target, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
    """An answer to each prompt (token ids)."""
    return generate(target.model, target.tokenizer, prompts, sampling, target.end_tokens)
