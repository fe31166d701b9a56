"""Why runs fail, told from messages as the libraries print them."""

from pathlib import Path

import pytest

from remote_payload.agent.run import causes
from remote_payload.agent.wire.protocol import ExitRecord

FAILED = ExitRecord("exit", 1, 1.0)
KILLED = ExitRecord("signal", 9, 1.0)

MESSAGES = [
    tuple(line.split(" | ", 1))
    for line in Path(__file__).with_name("failure_messages.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(
    ("cause", "message"), MESSAGES, ids=[f"{cause}: {message[:30]}" for cause, message in MESSAGES]
)
def test_a_message_tells_its_cause_and_is_quoted(cause, message):
    log = f'step 41 loss 0.3\nTraceback (most recent call last):\n  File "train.py", line 3, in <module>\n{message}\n'
    found = causes.explain(FAILED, log, 0, False)
    assert found.cause == cause
    assert found.evidence == message.strip()[: causes.MAX_EVIDENCE]
    assert found.advice


LOGS = [
    (title, log, *said.strip("\n").split(" | ", 1))
    for title, _, body in (
        case.partition("\n") for case in Path(__file__).with_name("failure_logs.txt").read_text().split("\n=== ")[1:]
    )
    for log, _, said in [body.partition(">>> ")]
]


@pytest.mark.parametrize(("title", "log", "cause", "evidence"), LOGS, ids=[case[0] for case in LOGS])
def test_the_end_of_a_log_tells_what_ended_the_run(title, log, cause, evidence):
    found = causes.explain(FAILED, log, 0, False)
    assert (found.cause, found.evidence) == (cause, evidence.strip())


def test_every_signature_is_shown_by_a_message():
    assert {signature.name for signature in causes.SIGNATURES} == {cause for cause, _ in MESSAGES} | {
        cause for _, _, cause, _ in LOGS if not cause.startswith("exit ")
    }


def test_nothing_in_ordinary_output_looks_like_a_cause():
    ordinary = (
        "epoch 3/10: loss 0.41, accuracy 0.91, dtype bfloat16, 8 GPUs, memory 21.4/24.0 GiB, timeout 600 s\n"
        "Some weights of BertModel were not initialized from the checkpoint\nDownloading shards: 100%\nsaving to disk\nexit\n"
    )
    assert causes.explain(FAILED, ordinary, 0, False) == ("exit 1", "exit", None)


def test_the_rank_that_ran_out_of_memory_is_the_cause_not_those_that_waited_for_it():
    log = "\n".join(
        [
            "[rank0]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
            "[rank1]: RuntimeError: Connection closed by peer [10.0.0.1]:4242",
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
            "============================================================",
        ]
    )
    assert causes.explain(FAILED, log, 0, False).cause == "cuda_oom"


@pytest.mark.parametrize("record", [KILLED, ExitRecord("exit", 137, 1.0), FAILED, None])
def test_a_process_ended_by_the_kernel_for_want_of_memory_is_host_oom_whatever_the_exit(record):
    found = causes.explain(record, "step 1\n", 1, False)
    assert found.cause == "host_oom" and "want of memory" in found.evidence


def test_signal_9_without_the_kernels_word_is_just_that():
    assert causes.explain(KILLED, "step 1\n", 0, False) == ("signal 9", "step 1", None)


def test_a_disk_that_is_full_is_the_cause_even_where_the_log_could_not_say_so():
    assert causes.explain(FAILED, "step 1\n", 0, True).cause == "disk_full"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("ValueError: bad\nnoise after\n", "ValueError: bad"),
        ("a\nb\n\n=====\n----\n", "b"),
        ("10%|#\r50%|##\r99% done\n", "99% done"),
        ("\x1b[31mred alert\x1b[0m\n", "red alert"),
        ("", None),
        ("\n\n", None),
    ],
)
def test_the_last_meaningful_line_is_the_evidence(log, line):
    assert causes.explain(FAILED, log, 0, False).evidence == line


def test_a_token_in_the_log_is_not_quoted():
    found = causes.explain(FAILED, "ValueError: token hf_abcdefghijklmnopqrst is wrong\n", 0, False)
    assert found.evidence == "ValueError: token [redacted] is wrong"


def test_a_line_of_a_megabyte_costs_nothing_and_is_cut():
    assert len(causes.explain(FAILED, "x" * (1 << 20), 0, False).evidence) == causes.MAX_EVIDENCE
