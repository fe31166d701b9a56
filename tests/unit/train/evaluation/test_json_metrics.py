import json

import pytest

from remote_payload.train.data.chat import Example
from remote_payload.train.data.records import Record
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation import answers
from remote_payload.train.evaluation.generation import Answer
from remote_payload.train.evaluation.json_metrics import NOTHING, field_f1, first_json, json_metrics, read_schema, same
from remote_payload.train.evaluation.json_schemas import check_schema, complies

SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a": 1} ', {"a": 1}),
        ('{"a": {"b": [1, 2]}}\n\nInput: more {"c": 3}', {"a": {"b": [1, 2]}}),
        ('Here you are:\n```json\n{"a": "}"}\n```', {"a": "}"}),
        ("[1, 2] and so on", [1, 2]),
        ("17", 17),
        ("17 apples", NOTHING),
        ('{"a": ', NOTHING),
        ('{"a": {"b": 1}', NOTHING),
        ('Like {this}: {"b": 1}', {"b": 1}),
        ("", NOTHING),
        ("[" * 100_000, NOTHING),
        ("[" * 900 + "]" * 900, json.loads("[" * 900 + "]" * 900)),
        ('{"a": NaN}', NOTHING),
        ("NaN", NOTHING),
        ('{"a": -Infinity, "b": {"c": 1}}', NOTHING),
        ('{"a": NaN} or rather {"a": null}', {"a": None}),
        ("9" * 5000, NOTHING),
        ('{"a": ' + "9" * 5000 + "}", NOTHING),
        ('{"a": ' + "9" * 5000 + '} no, {"a": 9}', {"a": 9}),
        ('<think>Perhaps {"a": 1}?</think>\n{"a": 2}', {"a": 2}),
        ('perhaps {"a": 1}?</think>{"a": 2}', {"a": 2}),
        ('<think>Perhaps {"a": 1}?', NOTHING),
        ('{"tag": "</think>"}', {"tag": "</think>"}),
    ],
)
def test_the_first_json_value_is_found_in_what_a_model_says(text, value):
    assert first_json(text) is value if value is NOTHING else first_json(text) == value


def test_of_several_values_the_first_of_the_kind_that_was_asked_for_is_the_answer():
    said = 'As [1] and [2] say: {"a": [3]}. Also {"b": 4}'
    assert first_json(said, dict) == {"a": [3]}
    assert first_json(said, list) == [1] == first_json(said)
    assert first_json("As [1] says", dict) == [1]
    assert json_metrics([said], [{"a": [3]}], [None])["json_exact"] == 1.0


def test_a_thought_is_no_part_of_a_plain_answer():
    assert json_metrics(["<think>[1] or so</think>\n Ada "], ["Ada"], [None])["json_exact"] == 1.0


def test_equality_is_jsons_not_pythons():
    assert same({"a": 1, "b": [1.0]}, {"b": [1], "a": 1.0})
    assert not same({"a": True}, {"a": 1})
    assert not same({"a": []}, {"a": {}})
    assert not same(None, "None")
    assert same(None, None) and not same(NOTHING, None)


def test_field_f1_counts_paths_with_their_values():
    expected = {"name": "Ada", "born": 1815, "tags": ["x", "y"], "deep": {"a": None}}
    found = {"name": "Ada", "born": 1816, "tags": ["x"], "extra": 1}
    # of 4 pairs found and 5 wanted, name and tags[0] agree
    assert field_f1(found, expected) == pytest.approx(2 * 2 / (4 + 5))
    assert field_f1(expected, expected) == 1.0
    assert field_f1(NOTHING, expected) == 0.0
    assert field_f1({}, {}) == 1.0


def test_expected_outputs_of_every_type_are_compared():
    outputs = ['{"a": 1}', "[1]", "plain text", "17", "null", '{"a": 1}', "true", "nonsense"]
    expected = [{"a": 1}, [1], "plain text", 17, None, '{"a": 1}', True, {"a": 1}]
    result = json_metrics(outputs, expected, [None] * 8)
    assert result == {"json_exact": 7 / 8, "field_f1": 7 / 8, "json_parses": 7 / 8}


def test_schema_compliance_is_over_the_examples_that_have_a_schema():
    outputs = ['{"name": "Ada"}', '{"name": 3}', "no json", '{"other": 1}']
    schemas = [SCHEMA, SCHEMA, SCHEMA, None]
    result = json_metrics(outputs, [{"name": "Ada"}] * 4, schemas)
    assert result["schema_compliance"] == pytest.approx(1 / 3)
    assert result["json_exact"] == 0.25


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, r"test\.jsonl:7: schema: not a JSON Schema: at type: 'objekt'"),
        ('{"type": ', r"test\.jsonl:7: schema: the schema is not valid JSON"),
        (3, r"test\.jsonl:7: field 'schema' is int"),
    ],
)
def test_a_schema_that_is_none_is_named_by_file_line_and_field(schema, message):
    with pytest.raises(InputError, match=message):
        read_schema(Record({"schema": schema}, "test.jsonl", 7), "schema")


def test_a_schema_may_be_kept_as_text():
    assert read_schema(Record({"schema": '{"type": "object"}'}, "a", 1), "schema") == {"type": "object"}


TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
NEAREST = {"$defs": {"name": {"type": "string"}}, "properties": {"name": {"$ref": "#/$defs/name"}}}


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        NEAREST,
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$id": "http://x/a", "$defs": {"b": {"$id": "b", "type": "object"}}, "properties": {"c": {"$ref": "b"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {}}, "not": {"$ref": "#/definitions/n"}},
        {"$anchor": "top", "properties": {"more": {"$ref": "#top"}}},
        True,
        {},
    ],
)  # fmt: skip
def test_a_schema_that_refers_to_itself_about_the_parts_of_a_value_is_a_good_one(schema):
    check_schema(schema, "s")
    complies({"children": [{"children": []}], "name": "x"}, schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "#"}, "leads back to itself"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "leads back to itself"),
        ({"$defs": {"a": {"anyOf": [{}, {"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}, "leads back"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, r"\$ref '#/\$defs/missing' leads nowhere"),
        ({"items": {"allOf": [{"$ref": "https://example.org/other.json"}]}}, "other.json' leads nowhere"),
        ({"items": {"pattern": "(unclosed"}}, "is not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "is not a 'regex'"),
    ],
)
def test_a_schema_that_no_answer_could_be_checked_by_is_found_before_training(schema, message):
    with pytest.raises(InputError, match=rf"test\.jsonl:7: schema: not a (usable )?JSON Schema: .*{message}"):
        read_schema(Record({"schema": schema}, "test.jsonl", 7), "schema")


def test_what_the_validator_fails_on_does_not_comply():
    assert not complies(1e308, {"multipleOf": 1e-308})
    assert not complies({"a": {"a": 1}}, {"properties": {"a": {"$ref": "#/nothing"}}})


def test_a_figure_that_cannot_be_measured_is_left_out_and_said(monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("a bug of a library")

    monkeypatch.setattr(answers, "reference_metrics", fails)
    example = Example(None, "q", "a", Record({}, "f", 1))
    scores = answers.score(
        [Answer([1], '{"a": 1}', True)], answers.Questions([example], [[1]], [2], answers.Expected([{"a": 1}], [None]))
    )
    assert scores["json_exact"] == 1.0 and "bleu" not in scores
    assert "bleu and rouge could not be measured: RuntimeError: a bug of a library" in capsys.readouterr().out
