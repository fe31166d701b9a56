"""The arguments of a request: every field has its type, or the request is refused by the field's name."""

import pytest

from remote_payload.agent.wire import launch_request
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.launch_request import Code, DataLink, Resume
from remote_payload.agent.wire.marks import Expected

RUN = "x-20260102-142030-7f3a"
WRONG = [
    ("job", [], "job"),
    ("code", "x", "code"),
    ("code", {"read_at": "x"}, "code.read_at"),
    ("code", {"contents": 1}, "code.contents"),
    ("data", {}, "data"),
    ("data", [7], "data[0]"),
    ("data", [{"key": "k"}, {"key": 7}], "data[1].key"),
    ("outputs", "models", "outputs"),
    ("outputs", [["models"]], "outputs[0]"),
    ("interpreter", 3.11, "interpreter"),
    ("command", "true", "command"),
    ("torchrun", "yes", "torchrun"),
    ("processes", True, "processes"),
    ("variables", {"A": 1}, "variables.A"),
    ("secrets", {"HF_TOKEN": ["canary"]}, "secrets.HF_TOKEN"),
    ("gpus", "some", "gpus"),
    ("gpus", 1.5, "gpus"),
    ("time_limit", "1h", "time_limit"),
    ("time_limit", float("inf"), "time_limit"),
    ("resume", {"run_id": RUN, "checkpoint": 5}, "resume.checkpoint"),
]


def read(**args):
    return launch_request.read(Fields({"run_id": RUN, **args}, "LaunchError"))


@pytest.mark.parametrize(("name", "value", "path"), WRONG)
def test_a_field_of_another_type_is_refused_by_its_path_and_its_value_is_not_shown(name, value, path):
    with pytest.raises(AgentError) as refused:
        read(**{name: value})
    assert refused.value.kind == "LaunchError" and refused.value.message.startswith(path + " in the request is ")
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("resume", [{"run_id": "../x"}, {"checkpoint": "auto"}])
def test_a_resumed_run_is_named_by_a_run_id(resume):
    with pytest.raises(AgentError, match="not a run id"):
        read(resume=resume)


def test_a_launch_is_read_whole():
    asked = read(
        job={"name": "x"}, code={"incoming": "a/1", "digest": "d", "marks": "m", "contents": True, "permissions": False},
        data=[{"path": "p", "key": "k", "member": None}], outputs=["o"], command=["true"], variables={"A": "1"},
        secrets={"B": "canary"}, gpus="all", queue=True, time_limit=60, resume={"run_id": RUN},
    )  # fmt: skip
    assert asked.code == Code("a/1", None, "d", None, Expected("m", True, False))
    assert asked.data == (DataLink("p", "k", None),) and asked.command == ("true",) and asked.gpus == "all"
    assert asked.time_limit == 60 and asked.queue and asked.resume == Resume(RUN, "auto")
    assert asked.secrets == {"B": "canary"} and "canary" not in repr(asked)


def test_what_is_not_asked_for_has_its_default():
    asked = read()
    assert (asked.job, asked.code, asked.data, asked.gpus) == ({}, Code(), (), 0)
    assert (asked.interpreter, asked.time_limit, asked.log_limit, asked.resume) == (None, None, None, None)


def test_a_negative_number_of_gpus_is_refused():
    with pytest.raises(AgentError, match="-1 GPUs"):
        read(gpus=-1)


def test_arguments_that_are_no_object_are_refused():
    with pytest.raises(AgentError, match="is a list, and not an object"):
        Fields([])
