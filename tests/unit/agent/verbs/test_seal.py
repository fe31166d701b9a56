import os
from pathlib import Path

import pytest

from remote_payload.agent.box.snapshot import fingerprint
from remote_payload.agent.verbs.seal import forget_data, has_data, seal
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request

P1, P2 = "data-1/1700000000-0a1b2c3d", "data-1/1700000009-0a1b2c3d"


@pytest.fixture
def box(tmp_path):
    return BoxPaths(str(tmp_path / "root"))


def push(box, name, files):
    for path, content in files.items():
        target = Path(box.incoming(name), path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)


def ask(box, incoming=P1, **args):
    """As the laptop asks that meant what lies there."""
    try:
        marks = fingerprint(box.incoming(incoming))
    except (OSError, TypeError):
        marks = ""
    return seal(Request({"incoming": incoming, "key": "data-1", "digest": "d1", "marks": marks, **args}, box))


def test_a_whole_push_gets_its_final_name_and_is_known_by_its_digest(box):
    push(box, P1, {"a.jsonl": "123", "b/c.jsonl": "45"})
    os.symlink("a.jsonl", box.incoming(P1) + "/link")
    assert not has_data(box, "data-1", "d1")
    assert ask(box) == {"key": "data-1", "path": box.data("data-1"), "files": 3, "bytes": 5}
    assert Path(box.data("data-1"), "b/c.jsonl").read_text() == "45"
    assert os.listdir(box.incoming("")) == []
    assert has_data(box, "data-1", "d1") and not has_data(box, "data-1", "d2")


def test_a_push_that_is_not_what_was_meant_stays_where_it_is(box):
    push(box, P1, {"a": "123", "b": "45"})
    with pytest.raises(AgentError) as failure:
        ask(box, marks="of another tree")
    assert failure.value.kind == "PushDiffers"
    assert os.path.isdir(box.incoming(P1)) and not os.path.exists(box.data("data-1"))


def test_asking_again_after_a_lost_answer_gives_the_same(box):
    push(box, P1, {"a": "123"})
    first = ask(box)
    assert ask(box) == first and (first["files"], first["bytes"]) == (1, 3)
    push(box, P2, {"a": "123"})
    assert ask(box, incoming=P2) == first
    assert not os.path.exists(box.incoming(P2))


def test_data_changed_on_the_box_is_noticed_and_replaced(box):
    push(box, P1, {"a": "123"})
    ask(box)
    Path(box.data("data-1"), "a").write_text("changed there")
    assert not has_data(box, "data-1", "d1")
    push(box, P2, {"a": "123"})
    ask(box, incoming=P2)
    assert Path(box.data("data-1"), "a").read_text() == "123" and has_data(box, "data-1", "d1")
    assert os.listdir(box.incoming("")) == []


def test_without_its_record_data_is_not_trusted(box):
    push(box, P1, {"a": "123"})
    ask(box)
    forget_data(box, "data-1")
    assert os.listdir(os.path.dirname(box.data("x"))) == [] and not has_data(box, "data-1", "d1")


def test_nothing_pushed_is_a_named_error(box):
    with pytest.raises(AgentError, match="not on the box") as failure:
        ask(box)
    assert failure.value.hint == "Submit again."


@pytest.mark.parametrize("name", ["../runs", "/etc", "a/b", "", ".", None, 7, "-rf", "x" * 200])
def test_names_that_lead_elsewhere_are_refused(box, name):
    for arguments in ({"incoming": name}, {"incoming": f"data-1/{name}"}, {"key": name}):
        with pytest.raises(AgentError, match=r"unusable name|in the request is a number"):
            ask(box, **arguments)
