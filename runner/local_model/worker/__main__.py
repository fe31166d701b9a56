"""The process: one request in, progress and results out, or one failure."""

from __future__ import annotations

import os
import sys

from remote_payload.train.errors import InputError
from runner.local_model.lines import message_line, read_request
from runner.local_model.messages import (
    EvaluateRequest,
    ExportRequest,
    Failure,
    Message,
    PredictRequest,
    Request,
    SampleRequest,
    Send,
)
from runner.local_model.worker import Refused

ON_BOX = "A run's model can be tried on its box: gpurun sample RUN --on-box"
INSTALL = "Install them beside gpurun: pip install 'gpurun[smoke]'"
INSTALL_METRICS = "Install them beside gpurun: pip install 'gpurun[train]'"


def main() -> None:
    """Answers the request on stdin. What libraries print to stdout goes to stderr."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(message: Message) -> None:
        output.write(message_line(message))
        output.flush()

    request = read_request(sys.stdin.buffer.readline())
    measures = isinstance(request, EvaluateRequest)
    try:
        answer(request, send)
    except Refused as error:
        send(Failure(str(error), error.hint, error.of_input))
    except InputError as error:
        send(Failure(str(error)))
    except ImportError as error:
        send(
            Failure(
                f"a library that loading needs is not installed here ({error})",
                INSTALL_METRICS if measures else INSTALL,
            )
        )
    except Exception as error:
        if os.environ.get("GPURUN_DEBUG"):
            raise
        elsewhere = ON_BOX if isinstance(request, SampleRequest) else ""
        send(Failure(f"it does not load or run here: {type(error).__name__}: {error}", elsewhere))


def answer(request: Request, send: Send) -> None:
    """Loads what the request names and sends what it predicts, or its answers to the prompts on stdin, writes it as a whole, or
    measures it."""
    if isinstance(request, EvaluateRequest):
        from runner.local_model.worker.evaluate import measure

        send(measure(request, send))
    elif isinstance(request, PredictRequest):
        from runner.local_model.worker.predict_files import predict

        send(predict(request, send))
    elif isinstance(request, SampleRequest):
        from runner.local_model.worker.sample import sample

        sample(request, sys.stdin.buffer, send)
    elif isinstance(request, ExportRequest):
        from runner.local_model.worker.export import export

        send(export(request, send))
    else:
        from runner.local_model.worker.smoke import smoke

        send(smoke(request, send))


if __name__ == "__main__":
    main()
