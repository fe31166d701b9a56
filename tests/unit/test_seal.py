import os
from pathlib import Path

import pytest

from remote_payload.agent.paths import BoxPaths
from remote_payload.agent.request import AgentError, Request
from remote_payload.agent.seal import forget_data, has_data, seal


@pytest.fixture
def box(tmp_path):
    return BoxPaths(str(tmp_path / "root"))


def push(box, name, files):
    for path, content in files.items():
        target = Path(box.incoming(name), path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)


def ask(box, **args):
    return seal(Request({"incoming": "p1", "key": "data-1", "digest": "d1", **args}, box))


def test_a_whole_push_gets_its_final_name_and_is_known_by_its_digest(box):
    push(box, "p1", {"a.jsonl": "123", "b/c.jsonl": "45"})
    os.symlink("a.jsonl", box.incoming("p1") + "/link")
    assert not has_data(box, "data-1", "d1")
    assert ask(box, files=3, bytes=5) == {"key": "data-1", "path": box.data("data-1"), "files": 3, "bytes": 5}
    assert Path(box.data("data-1"), "b/c.jsonl").read_text() == "45"
    assert os.listdir(os.path.dirname(box.incoming("p1"))) == []
    assert has_data(box, "data-1", "d1") and not has_data(box, "data-1", "d2")


def test_a_single_file_can_be_sealed(box):
    os.makedirs(os.path.dirname(box.incoming("p1")))
    Path(box.incoming("p1")).write_text("12345")
    ask(box, files=1, bytes=5)
    assert Path(box.data("data-1")).read_text() == "12345" and has_data(box, "data-1", "d1")


@pytest.mark.parametrize(("expected", "why"), [({"files": 3}, "3 files, 2 arrived"), ({"bytes": 9}, "9 bytes, 5")])
def test_a_push_that_did_not_arrive_whole_stays_where_it_is(box, expected, why):
    push(box, "p1", {"a": "123", "b": "45"})
    with pytest.raises(AgentError, match=why) as failure:
        ask(box, **expected)
    assert failure.value.kind == "TransferInterrupted"
    assert os.path.isdir(box.incoming("p1")) and not os.path.exists(box.data("data-1"))


def test_asking_again_after_a_lost_answer_gives_the_same(box):
    push(box, "p1", {"a": "123"})
    first = ask(box, files=1, bytes=3)
    assert ask(box, files=1, bytes=3) == first
    push(box, "p2", {"a": "123"})
    assert ask(box, incoming="p2", files=1, bytes=3) == first
    assert not os.path.exists(box.incoming("p2"))


def test_data_changed_on_the_box_is_noticed_and_replaced(box):
    push(box, "p1", {"a": "123"})
    ask(box)
    Path(box.data("data-1"), "a").write_text("changed there")
    assert not has_data(box, "data-1", "d1")
    push(box, "p2", {"a": "123"})
    ask(box, incoming="p2")
    assert Path(box.data("data-1"), "a").read_text() == "123" and has_data(box, "data-1", "d1")
    assert os.listdir(os.path.dirname(box.incoming("p1"))) == []


def test_without_its_record_data_is_not_trusted(box):
    push(box, "p1", {"a": "123"})
    ask(box)
    forget_data(box, "data-1")
    assert os.listdir(os.path.dirname(box.data("x"))) == [] and not has_data(box, "data-1", "d1")


def test_nothing_pushed_is_a_named_error(box):
    with pytest.raises(AgentError, match="not on the box") as failure:
        ask(box)
    assert failure.value.hint == "Submit again."


@pytest.mark.parametrize("name", ["../runs", "/etc", "a/b", "", ".", None, 7, "-rf", "x" * 200])
def test_names_that_lead_elsewhere_are_refused(box, name):
    for argument in ("incoming", "key"):
        with pytest.raises(AgentError, match="unusable name"):
            ask(box, **{argument: name})
