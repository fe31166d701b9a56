import pytest

from remote_payload.train.data import Record
from remote_payload.train.errors import InputError
from remote_payload.train.json_metrics import NOTHING, field_f1, first_json, json_metrics, read_schema, same

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
    ],
)
def test_the_first_json_value_is_found_in_what_a_model_says(text, value):
    assert first_json(text) is value if value is NOTHING else first_json(text) == value


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
