"""Models on this machine: a fetched model is inspected, loaded in a process of its own, and asked.

``gpurun smoke-test`` compares its predictions with the box's, ``gpurun sample`` gives it prompts, ``gpurun export`` writes it for other
tools. All use the same inspection
(``inspect.py``), the same base model (``base.py``) and the same process (``process.py``, ``worker/``).

What is read in a model's folder (written by ``remote_payload/train`` at the end of a run):

``gpurun.json``
    ``{"format": 1, "recipe", "kind": "classifier" | "causal_lm", "base": {"id", "revision", "path"}, "adapter": bool,
    "dtype", "labels": [...], "max_length", "head": ...}``. ``base.id`` is the job's ``settings.model`` as written
    there, also when it is a local folder; ``base.path`` is null for a model of the hub.
``smoke/inputs.jsonl``
    One object a row: ``{"text": ...}`` for a classifier; ``{"prompt": ..., "add_special_tokens": bool}`` for a causal
    language model, the prompt being what the tokenizer is given, after any chat template.
``smoke/expected.safetensors``
    ``logits`` (fp32): ``[rows, classes]`` of a classifier; ``[rows, vocabulary]`` at the last token of each prompt of a
    causal language model, with ``tokens`` (int64) ``[rows, new tokens]``, the greedy continuation (plain argmax, no
    penalties, -1 after the end token).
``smoke/about.json``
    ``{"dtype": "float32" | "bfloat16" | "float16", "device": "cuda" | "cpu" | "mps", "rows": int}``: what the box used.
"""
