"""The message for an unknown key: a similar key, or the place where it belongs. Many come from the files of other tools."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from remote_payload.settings.training import RETIRED
from runner.jobfile.problems import quoted, suggestion
from runner.jobfile.schema_parts import Schema, resolve

# What docker-compose, GitHub Actions, SkyPilot, dstack, Slurm and others call it → the field. Written as ``normal`` gives it.
_NAMES = {
    "environment.variables": "env envs environ environment_variables env_vars vars",
    "command": "run script entrypoint cmd commands args program exec",
    "code.path": "workdir working_dir working_directory cwd chdir directory project source src root folder",
    "data": "file_mounts volumes mounts storage_mounts datasets dataset inputs files",
    "outputs": "artifacts output output_dir out results",
    "time_limit": "timeout max_duration walltime time timeout_minutes max_time duration",
    "resources.gpus": "gpu num_gpus gpu_count ngpus n_gpus accelerators gpus_per_node gres nvidia_gpu",
    "resources.vram": "gpu_memory gpu_mem min_vram",
    "resources.disk": "disk_size storage disk_space",
    "resources.processes": "nproc nproc_per_node num_processes world_size",
    "environment.requirements": "pip packages dependencies requires requirements_file libraries",
    "environment.python": "python_version py",
    "environment.interpreter": "venv virtualenv conda conda_env python_path",
    "code.exclude": "ignore excludes",
    "hub.models": "model repo repos base_model model_name",
    "price_per_hour": "price cost",
    "cost_limit": "budget max_cost cost_cap",
    "sweep": "matrix grid strategy",
    "keep_finished": "keep_first keep_runs retention",
    "settings.epochs": "num_epochs num_train_epochs",
    "settings.max_length": "max_seq_length max_seq_len context_length block_size",
    "settings.batch.size": "batch_size train_batch_size per_device_train_batch_size",
    "settings.optimizer.learning_rate": "lr",
    "settings.lora.rank": "r lora_r",
    "name": "title job_name",
}
# Keys of other tools for which a job has no field → what to do instead.
_NO_FIELD = {
    "host hosts server address ssh machine remote provider cloud region backend backends instance_type infra": (
        "the box is named when the job is submitted, gpurun submit JOB --host user@address: leave it out"
    ),
    "setup before_script pre_run install bootstrap onstart prepare": (
        "packages go under environment.requirements, other preparation into the command, "
        'such as [bash, -c, "./prepare.sh && exec python train.py"]: leave it out'
    ),
    "image docker container dockerfile build image_id": (
        "a run lives in the container that you rented, with environment.python and environment.requirements "
        "or the image's own Python as environment.interpreter: leave it out"
    ),
    "cpus cpu memory mem ram vcpus cpus_per_task shm_size": (
        "a run may use every CPU and all memory of its box (resources.vram is the memory of each GPU): leave it out"
    ),
    "ports expose port": "gpurun opens no ports, ssh -L forwards one: leave it out",
    "nodes num_nodes nnodes ntasks": "one job runs on one box, without a scheduler: leave it out",
    "retry retries max_retries max_restarts restart spot use_spot": (
        "a run starts once, and gpurun resume goes on from its last checkpoint: leave it out"
    ),
    "token hf_token api_key password": (
        "a job file holds no secrets; name the variable under secrets: and its value comes from your shell: leave it out"
    ),
    "hyperparameters params parameters options": (
        "a recipe is told under settings:, your own program in the words of command: leave it out"
    ),
    "services jobs steps stages runs_on uses tasks type on version": (
        "that is another tool's file, and gpurun init writes a job file to start from: leave it out"
    ),
}
BLANKS = re.compile(r"[\u00a0\u2000-\u200b\u202f\u3000\ufeff]")


def explain(keys: Sequence[str | int], schema: Schema, known: Schema) -> str:
    """The message for the unknown key at the end of ``keys``; ``known`` are the fields that its mapping may have."""
    word, above = str(keys[-1]), [str(key) for key in keys[:-1]]
    if word in RETIRED and above[:1] == ["settings"]:
        return f"{'.'.join([*above, word])} is no longer a setting: {RETIRED[word]}"
    return f"unknown key {quoted(word)}{_in(above)}{_advice(word, above, schema, known)}"


def _in(above: list[str]) -> str:
    where = ".".join(key if re.fullmatch(r"[\w-]{1,60}", key) else quoted(key) for key in above)
    return f" in {where}" if where else ""


def _advice(word: str, above: list[str], schema: Schema, known: Schema) -> str:
    plain = normal(word)
    if plain in known:
        blank = " (there is a no-break space in it)" if BLANKS.search(word) else ""
        return f": did you mean {plain}?{blank}"
    if not above or above == ["resources"]:
        for names, advice in _NO_FIELD.items():
            if plain in names.split():
                return f": {advice}"
    place = _place(plain, above, schema)
    if place and list(place[:-1]) == above:
        return f": did you mean {place[-1]}?"
    if not place and above in ([], ["environment"]) and re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", word):
        place = ("environment", "variables", word)
    near = suggestion(plain, known)
    if place and not (near and place[-1] != plain and plain not in _NAMES.get(".".join(place), "").split()):
        margin = ", at the left margin" if above and len(place) == 1 else ""
        return f": here that is {_nested(place)}{margin}"
    return near or (": there are " + ", ".join(known) if 0 < len(known) <= 12 else "")


def stands_for(word: str, field: str) -> bool:
    """Whether other tools call a field of a job so."""
    return normal(word) in _NAMES[field].split()


def normal(word: str) -> str:
    """``GPU-Count``, ``gpuCount`` and ``gpu_count`` as one."""
    bare = BLANKS.sub("", word).strip()
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).lower()).strip("_")


def _place(plain: str, above: list[str], schema: Schema) -> tuple[str, ...]:
    """The path of the only field elsewhere in a job that has this name, here or in other tools; the nearest one first. Empty for none."""
    fields = list(_fields(schema, schema, ()))
    exact = [field for field in fields if field[-1] == plain and list(field[:-1]) != above]
    called = [field for field in fields if plain in _NAMES.get(".".join(field), "").split()]
    for some in (exact, called):
        beside = [field for field in some if above and field[: len(above)] == tuple(above)]
        top = [field for field in some if len(field) == 1]
        if len(found := beside or top or some) == 1:
            return found[0]
    return ()


def _nested(place: tuple[str, ...]) -> str:
    """``("resources", "gpus")`` as it is written in a file: ``resources: {gpus: …}``."""
    text = "…"
    for depth, key in enumerate(reversed(place)):
        text = f"{key}: {text}" if depth == 0 else f"{key}: {{{text}}}"
    return text


def _fields(part: Schema, schema: Schema, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The path of every field that a JSON Schema names."""
    for name, below in part.get("properties", {}).items():
        yield (*above, name)
        if len(above) < 3:
            yield from _fields(resolve(below, schema), schema, (*above, name))
