"""The Python in a model's card. It loads the model and asks it with transformers and peft alone: gpurun need not be installed.

What it computes is what the box computed for ``smoke/``: the weights in fp32, the base model at the commit of training, and prompts in
the form of training.
"""

from __future__ import annotations

import inspect
import json
from importlib.metadata import version

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from remote_payload.settings.generation import Generation
from remote_payload.train.data.chat import PLACEHOLDER
from remote_payload.train.download import BaseModel
from remote_payload.train.model.causal import Network
from remote_payload.train.model.classifier import Classifier
from remote_payload.train.model.model_facts import Prompting
from remote_payload.train.model.standard_classifier import standard_classifier

# The name has two slashes, which no repository of the Hub has: it is this folder, or an error.
FOLDER = "./models/best"
MODEL = f'MODEL = "{FOLDER}"  # the folder of this card, or the name of its repository on the Hub'
TOKENIZER = "tokenizer = AutoTokenizer.from_pretrained(MODEL)"
CLASSIFY = """
def logits_of(texts):
    batch = tokenizer(texts, truncation=True, max_length={max_length}, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    with torch.no_grad():
        hidden = encoder(batch["input_ids"], attention_mask=mask).last_hidden_state
    mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # padding does not count
    return torch.nn.functional.linear(mean, head["weight"], head["bias"])


for text, shares in zip(texts := ["…"], logits_of(texts).softmax(-1)):
    print(text, LABELS[shares.argmax()], shares.tolist())
"""
STANDARD = """
def logits_of(texts):
    batch = tokenizer(texts, truncation=True, max_length={max_length}, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits


for text, shares in zip(texts := ["…"], logits_of(texts).softmax(-1)):
    print(text, LABELS[shares.argmax()], shares.tolist())
"""
ANSWER = """
def answer({argument}, max_new_tokens={new_tokens}, **sampling):
{prompt}
    greedy = {{"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}}
    ends = {{"eos_token_id": {ends}, "pad_token_id": tokenizer.pad_token_id, "max_new_tokens": max_new_tokens}}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **ends, **{{**greedy, **sampling}})
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


print(answer({given}))
"""


def causal_usage(
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    base: BaseModel | None,
    prompting: Prompting,
    generation: Generation,
) -> str:
    """Python that answers a prompt of a language model; ``generation`` is how the example at its end samples."""
    adapter = isinstance(network, PeftModel)
    argument, given, lines = _asking(prompting, tokenizer)
    if positions := getattr(network.config, "n_positions", None):  # GPT-2's are learned: there are no more of them
        lines.append(f"max_new_tokens = min(max_new_tokens, {positions} - ids.shape[1])  # of {positions} positions")
    sampled = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}  # as in reports/
    options = [f"{name}={value}" for name, value in sampled.items()] if generation.temperature > 0 else []
    if options:
        options.insert(0, "do_sample=True")
    if generation.repetition_penalty != 1:
        options.append(f"repetition_penalty={generation.repetition_penalty}")
    function = ANSWER.format(
        argument=argument,
        prompt="\n".join(f"    {line}" for line in lines),
        new_tokens=generation.max_new_tokens,
        ends=prompting.get("end_tokens"),
        given=", ".join([given, *options]),
    )
    template = prompting.get("prompt_template")
    form = [f"PROMPT = {_literal(template)}"] if template is not None else []
    head = _imports(adapter, "AutoModelForCausalLM, AutoTokenizer", *(["import re"] if form else []))
    loading = _loading("AutoModelForCausalLM", "model", base, adapter)
    return "\n".join([*head, MODEL, *form, *loading, TOKENIZER, function])


def classifier_usage(base: BaseModel, labels: list[int | str], max_length: int, model: Classifier) -> str:
    """Python that computes the logits ``[texts, classes]`` of a classifier, and prints the class of a text."""
    named = f"LABELS = [{', '.join(map(_literal, labels))}]"
    if standard_classifier(model.encoder, model.head, labels):
        auto = "AutoModelForSequenceClassification"
        head = _imports(False, f"{auto}, AutoTokenizer")
        function = STANDARD.format(max_length=max_length)
        return "\n".join([*head, MODEL, named, *_loading(auto, "model", None, False), TOKENIZER, function])
    adapter = isinstance(model.encoder, PeftModel)
    network = model.encoder.get_base_model() if isinstance(model.encoder, PeftModel) else model.encoder
    # BERT and its relatives would make a pooler of random weights, which nothing uses, and warn of them.
    pooler = "add_pooling_layer" in inspect.signature(type(network).__init__).parameters
    head = _imports(adapter, "AutoModel, AutoTokenizer", "from safetensors.torch import load_file")
    return "\n".join(
        [
            *head[:-1],
            "from transformers.utils import cached_file",
            "",
            MODEL,
            named,
            *_loading("AutoModel", "encoder", base, adapter, ", add_pooling_layer=False" if pooler else ""),
            'head = load_file(cached_file(MODEL, "head.safetensors"))  # one linear layer',
            TOKENIZER,
            CLASSIFY.format(max_length=max_length),
        ]
    )


def _imports(adapter: bool, names: str, *more: str) -> list[str]:
    """The first lines, up to the empty line after the imports."""
    libraries = ["transformers", "peft"] if adapter else ["transformers"]
    made_with = ", ".join(f"{name} {version(name)}" for name in libraries)
    peft = ["from peft import PeftModel"] if adapter else []
    install = f"# pip install torch {' '.join(libraries)}   (made with {made_with})"
    return [install, "import torch", *peft, *more, f"from transformers import {names}", ""]


def _loading(auto: str, name: str, base: BaseModel | None, adapter: bool, options: str = "") -> list[str]:
    """The lines that load the model into the variable ``name``, the adapter on its base where it is one."""
    options = f', dtype="float32"{options}'
    if not adapter or base is None:
        return [f"{name} = {auto}.from_pretrained(MODEL{options})"]
    if base.on_the_hub:
        source = f"{_literal(base.id)}, revision={_literal(base.revision)}"
        lines = [f"{name} = {auto}.from_pretrained({source}{options})"]
    else:
        lines = [
            f"BASE = {_literal(base.name)}  # the folder of the base model, wherever it lies on this machine",
            f"{name} = {auto}.from_pretrained(BASE, local_files_only=True{options})",
        ]
    return [*lines, f"{name} = PeftModel.from_pretrained({name}, MODEL).eval()"]


def _asking(prompting: Prompting, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, list[str]]:
    """The argument of ``answer``, an example of it, and the lines that make token ids ``[1, tokens]`` of it as training did."""
    if prompting.get("chat"):
        system = prompting.get("system_prompt")
        first = f'{{"role": "system", "content": {_literal(system)}}}, ' if system else ""
        lines = [
            f'messages = [{first}{{"role": "user", "content": question}}]',
            "asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)",
            'ids = tokenizer(asked, add_special_tokens=False, return_tensors="pt")["input_ids"]',
        ]
        return "question", '"…"', lines
    template = prompting.get("prompt_template")
    lines = ['ids = tokenizer(prompt, return_tensors="pt")["input_ids"]']
    if tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        lines.append("ids = ids[:, :-1]  # without the end token that this tokenizer puts after every text")
    if template is None:
        return "prompt", '"…"', lines
    lines.insert(0, r'prompt = re.sub(r"\{(\w+)\}", lambda found: fields[found[1]], PROMPT)')
    names = dict.fromkeys(PLACEHOLDER.findall(template))
    return "fields", "{" + ", ".join(f'{_literal(name)}: "…"' for name in names) + "}", lines


def _literal(value: object) -> str:
    """The value in Python; text in double quotes, on one line."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
