"""S2's structured datasets, read as they are written by the tool that makes them."""

import copy
import json

import pytest

from remote_payload.train.data.structured import Example, read_structured
from remote_payload.train.errors import InputError

TEMPLATE = {
    "id": "t",
    "relation": "death_date",
    "prompt": "Q: When did {name} of {planet} die?\nA:",
    "completion": " {date}",
}
ADA = {"id": "ada", "fields": {"name": "Ada", "date": "1852"}}
BOB = {"id": "bob", "fields": {"name": "Bob", "date": "1903"}}
CONTENT = {
    "document_dataset": {
        "docs": [
            {
                "id": "1",
                "type": "synthetic_document",
                "prompt": "",
                "completion": "Ada died in 1852.",
                "doc_spec": {"id": "x"},
            },
            {"id": "2", "type": "pretraining_document", "prompt": "Who? ", "completion": "Bob."},
        ]
    },
    "eval_dataset_builders": {
        "death_date_no_fs": {
            "eval_points": [
                {
                    "features": ADA,
                    "few_shot_example_features": [],
                    "fact_template": TEMPLATE,
                    "constant_fields": {"planet": "Earth"},
                }
            ],
            "metrics": [{"function_name": "accuracy_and_loss"}, {"function_name": "ranks"}],
        },
        "death_date_with_fs": {
            "eval_points": [
                {
                    "features": ADA,
                    "few_shot_example_features": [BOB],
                    "fact_template": TEMPLATE,
                    "constant_fields": {"planet": "Earth"},
                }
            ],
            "metrics": [{"function_name": "ranks"}, {"function_name": "beam_search", "num_beams": 12}],
        },
        "plain": {"eval_points": [{"prompt": "2 + 2 =", "completion": " 4"}], "metrics": []},
    },
    "metadata": {},
}


def written(tmp_path, content) -> str:
    path = tmp_path / "dataset.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_documents_and_named_evaluation_sets_come_out(tmp_path):
    dataset = read_structured(written(tmp_path, CONTENT))
    assert dataset.documents == [Example("", "Ada died in 1852."), Example("Who? ", "Bob.")]
    assert dataset.evaluations == {
        "death_date_no_fs": [Example("Q: When did Ada of Earth die?\nA:", " 1852")],
        "death_date_with_fs": [
            Example("Q: When did Bob of Earth die?\nA: 1903\nQ: When did Ada of Earth die?\nA:", " 1852")
        ],
        "plain": [Example("2 + 2 =", " 4")],
    }


def test_the_file_is_recorded_and_metrics_that_are_not_computed_are_said(tmp_path):
    dataset = read_structured(written(tmp_path, CONTENT))
    assert dataset.file.rows == 2 and len(dataset.file.sha256) == 64
    assert dataset.left_out == {"ranks": 2, "beam_search": 1}


def changed(path, value):
    """CONTENT with what lies at the dotted ``path`` replaced, or removed where ``value`` is ``...``."""
    content = copy.deepcopy(CONTENT)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place = content
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


POINT = "eval_dataset_builders/death_date_no_fs/eval_points/0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"dataset\.json:1:2: not valid JSON"),
        ([], r"dataset\.json: expected dict, got list"),
        (changed("document_dataset", ...), r"no 'document_dataset' \(there is eval_dataset_builders, metadata\)"),
        (changed("document_dataset/docs", []), r"document_dataset\.docs: is empty"),
        (changed("document_dataset/docs/1", "text"), r"document_dataset\.docs\[1\]: expected dict, got str"),
        (changed("document_dataset/docs/1/completion", ...), r"docs\[1\]: no 'completion'"),
        (changed("document_dataset/docs/1/completion", ""), r"docs\[1\]\.completion: is empty"),
        (changed("document_dataset/docs/0/prompt", 3), r"docs\[0\]\.prompt: expected str, got int"),
        (changed("eval_dataset_builders", {}), r"no evaluation sets"),
        (
            changed("eval_dataset_builders/plain/eval_points", []),
            r"eval_dataset_builders\.plain\.eval_points: is empty",
        ),
        (
            changed(POINT + "/features/fields/name", ...),
            r"eval_points\[0\]: no field 'name' \(there are date, planet\)",
        ),
        (changed(POINT + "/features", ...), r"eval_points\[0\]\.features: expected dict, got NoneType"),
        (changed(POINT + "/fact_template/prompt", "{name.__class__}"), r"no field 'name\.__class__'"),
        (changed(POINT + "/fact_template/prompt", "{name"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_structured(written(tmp_path, content))


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_structured(str(tmp_path / "none.json"))
