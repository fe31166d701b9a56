"""A Modelfile, from which ``ollama create`` makes a model: weights, template, system message, stop tokens, generation settings.

Format: https://docs.ollama.com/modelfile
"""

from __future__ import annotations

import json
from pathlib import Path

from remote_payload.settings.generation import Answering
from runner.domain.errors import ArtifactError
from runner.local_model.messages import PromptForm

MODELFILE = "Modelfile"


def modelfile(weights: Path, form: PromptForm, generation: Answering | None) -> str:
    """The text of the file, for weights that lie beside it; without ``generation`` Ollama's own settings stay.

    Raises ArtifactError for a text that the format cannot hold.
    """
    lines = [f"FROM ./{weights.name}", f"TEMPLATE {_quoted(form.template)}"]
    if form.system:
        lines.append(f"SYSTEM {_quoted(form.system)}")
    lines += [f"PARAMETER {name} {value}" for name, value in _parameters(generation).items()]
    lines += [f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in form.stop]
    return "\n".join(lines) + "\n"


def _parameters(generation: Answering | None) -> dict[str, float]:
    if generation is None:
        return {}
    found = {"temperature": generation.temperature, "repeat_penalty": generation.repetition_penalty}
    sampled = {"top_p": generation.top_p, "top_k": 0} if generation.temperature else {}
    return {**found, **sampled, "num_predict": generation.max_new_tokens}


def _quoted(text: str) -> str:
    if '"""' in text or text.endswith('"'):
        raise ArtifactError(
            'its prompt has """ in it, or ends with ", which a Modelfile cannot hold', meaning="Nothing was exported."
        )
    return f'"""{text}"""'
