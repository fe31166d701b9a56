"""Why runs fail, told from messages as the libraries print them."""

import pytest

from remote_payload.agent import causes
from remote_payload.agent.protocol import ExitRecord

FAILED = ExitRecord("exit", 1, 1.0)
KILLED = ExitRecord("signal", 9, 1.0)

# Real messages: torch 2.x, transformers 5, huggingface_hub 1 and 2, NCCL, the C library.
MESSAGES = [
    (
        "cuda_oom",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.20 GiB is free.",
    ),
    ("cuda_oom", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("cuda_oom", "RuntimeError: MPS backend out of memory (MPS allocated: 4.64 GB)"),
    ("host_oom", "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed. "),
    (
        "host_oom",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)",
    ),
    ("host_oom", "MemoryError"),
    ("host_oom", "OSError: [Errno 12] Cannot allocate memory"),
    ("disk_full", "OSError: [Errno 28] No space left on device: 'outputs/checkpoints/step-000500'"),
    (
        "disk_full",
        "RuntimeError: [enforce fail at inline_container.cc:783] . PytorchStreamWriter failed writing file data/12: file write failed",
    ),
    (
        "disk_full",
        "safetensors_rust.SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)",
    ),
    ("disk_full", "OSError: [Errno 122] Disk quota exceeded"),
    ("gated_model", "huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: ViT1Bf7O_026LGSQuVqfa)"),
    ("gated_model", "Access to model google/embeddinggemma-300m is restricted and you are not in the authorized list."),
    ("gated_model", "OSError: You are trying to access a gated repo."),
    ("missing_model", "Repository Not Found for url: https://huggingface.co/api/models/nobody/nothing."),
    (
        "missing_model",
        "OSError: nobody/nothing is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'",
    ),
    ("missing_model", "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. (Request ID: x)"),
    ("missing_model", "OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/nonexistent/x'."),
    (
        "driver_too_old",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
    ),
    ("driver_too_old", "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    (
        "driver_too_old",
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW",
    ),
    ("no_gpu", "RuntimeError: ProcessGroupNCCL is only supported with GPUs, no GPUs found!"),
    ("no_gpu", "RuntimeError: Distributed package doesn't have NCCL built in"),
    ("no_gpu", "AssertionError: Torch not compiled with CUDA enabled"),
    ("no_gpu", "RuntimeError: No CUDA GPUs are available"),
    ("dtype_mismatch", "RuntimeError: mat1 and mat2 must have the same dtype, but got BFloat16 and Float"),
    ("dtype_mismatch", "RuntimeError: expected m1 and m2 to have the same dtype, but got: c10::BFloat16 != float"),
    ("dtype_mismatch", "RuntimeError: Input type (c10::BFloat16) and bias type (float) should be the same"),
    ("dtype_mismatch", "RuntimeError: expected scalar type Float but found BFloat16"),
    (
        "renamed_argument",
        "TypeError: TrainingArguments.__init__() got an unexpected keyword argument 'evaluation_strategy'",
    ),
    ("missing_module", "ModuleNotFoundError: No module named 'flash_attn'"),
    ("missing_module", "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory"),
    ("missing_module", "ImportError: cannot import name 'AdamW' from 'transformers' (/x/transformers/__init__.py)"),
    (
        "timed_out",
        "[rank1]:[E ProcessGroupNCCL.cpp:632] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE) ran for 600010 milliseconds before timing out.",
    ),
    (
        "timed_out",
        "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
    ),
    (
        "connection_lost",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.",
    ),
    ("connection_lost", "httpx.ReadTimeout: The read operation timed out"),
    (
        "connection_lost",
        "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4242",
    ),
    (
        "connection_lost",
        "'[Errno -2] Name or service not known' thrown while requesting HEAD https://huggingface.co/x/y",
    ),
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


def test_every_signature_is_shown_by_a_message():
    assert {signature.name for signature in causes.SIGNATURES} == {cause for cause, _ in MESSAGES}


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
    assert found.evidence == "ValueError: token [secret] is wrong"


def test_a_line_of_a_megabyte_costs_nothing_and_is_cut():
    assert len(causes.explain(FAILED, "x" * (1 << 20), 0, False).evidence) == causes.MAX_EVIDENCE
