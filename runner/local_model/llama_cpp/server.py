"""A GGUF file loaded by ``llama-server``, and asked over HTTP on this machine: its tokens and their probabilities."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from remote_payload.agent.wire.redact import redact
from runner.domain.errors import ArtifactError
from runner.domain.terminal import clean_lines
from runner.local_model.process import SILENCE, worker_environment

EVERY = 0.1  # seconds between two looks whether it is ready
LISTED = 100  # of the most probable tokens


class LlamaServer:
    """A server that has one model."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def tokens_of(self, text: str, *, special: bool) -> list[int]:
        """The text's tokens; ``special`` as a tokenizer's ``add_special_tokens``."""
        asked = {"content": text, "add_special": special, "parse_special": True}
        return [int(token) for token in self._ask("tokenize", asked)["tokens"]]

    def continued(self, prompt: Sequence[int], count: int) -> list[int]:
        """At most ``count`` tokens after the prompt, always the most probable one; an end token is the last."""
        return [int(token) for token in self._complete(prompt, count)["tokens"]]

    def log_probabilities(self, prompt: Sequence[int], chosen: int) -> dict[int, float]:
        """The log-probabilities of the LISTED most probable tokens after the prompt.

        ``chosen`` is the token that is taken then, whatever they are: of a token that is half a character the server would not tell.
        Its own probability is not changed by that.
        """
        found = self._complete(prompt, 1, n_probs=LISTED, logit_bias=[[chosen, 1000.0]])["completion_probabilities"]
        return {int(each["id"]): float(each["logprob"]) for each in found[0]["top_logprobs"]}

    def ready(self) -> bool:
        """Whether the model is loaded."""
        try:
            with self._opener.open(f"{self._url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _complete(self, prompt: Sequence[int], count: int, **more: object) -> Any:
        greedy = {"temperature": 0, "samplers": ["temperature"], "repeat_penalty": 1.0, "cache_prompt": False}
        return self._ask(
            "completion", {"prompt": list(prompt), "n_predict": count, "return_tokens": True, **greedy, **more}
        )

    def _ask(self, what: str, body: dict[str, object]) -> Any:
        request = urllib.request.Request(f"{self._url}/{what}", json.dumps(body).encode())
        try:
            with self._opener.open(request, timeout=SILENCE) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:
            said = error.read(400) if isinstance(error, urllib.error.HTTPError) else b""
            raise ArtifactError(
                f"llama-server does not answer: {error} {clean_lines(said.decode(errors='replace'), 300)}"
            ) from None


@contextmanager
def serving(program: Path, model: Path, length: int) -> Iterator[LlamaServer]:
    """The server with the model loaded, for prompts and answers of ``length`` tokens together; ended when the ``with`` block ends.

    Raises ArtifactError when it does not load the model.
    """
    with tempfile.TemporaryDirectory(prefix="gpurun-server-") as empty, tempfile.TemporaryFile() as log:
        port = _free_port()
        where = ["--host", "127.0.0.1", "--port", str(port)]
        words = [str(program), "-m", str(model.absolute()), *where, "-ngl", "0", "-np", "1", "-c", str(length)]
        process = subprocess.Popen(
            words, cwd=empty, env=worker_environment(empty), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            server = LlamaServer(port)
            _wait(server, process, log)
            yield server
        finally:
            process.kill()
            process.wait()


def _wait(server: LlamaServer, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    began = time.monotonic()
    while not server.ready():
        if process.poll() is not None or time.monotonic() - began > SILENCE:
            log.seek(0)
            last = "\n".join(log.read().decode("utf-8", "replace").splitlines()[-4:])
            raise ArtifactError(f"llama-server does not load the file:\n{redact(clean_lines(last, 900))}")
        time.sleep(EVERY)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
