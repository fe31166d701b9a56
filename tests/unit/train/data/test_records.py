import hashlib
import json

import pyarrow
import pyarrow.parquet
import pytest

from remote_payload.train.data.facts import describe_file
from remote_payload.train.data.records import find_files, read_all, read_json, read_records, split
from remote_payload.train.errors import InputError

MIXED = [
    {"prompt": "a", "expected_output": {"name": "Ada", "tags": ["x", 1, None], "deep": {"n": 1.5}}},
    {"prompt": "b", "expected_output": ["x", {"y": 2}]},
    {"prompt": "c", "expected_output": "plain"},
    {"prompt": "d", "expected_output": 17},
    {"prompt": "e", "expected_output": None},
]


def write_lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return str(path)


def test_mixed_and_nested_values_come_back_exactly_as_written(tmp_path):
    file = write_lines(tmp_path / "mixed.jsonl", MIXED)
    assert [record.value for record in read_records(file)] == MIXED


def test_a_json_array_and_json_lines_under_a_json_name_give_the_same_records(tmp_path):
    array = tmp_path / "array.json"
    array.write_text(json.dumps(MIXED, indent=1))
    lines = write_lines(tmp_path / "lines.json", MIXED)
    assert [r.value for r in read_records(str(array))] == [r.value for r in read_records(lines)] == MIXED


def test_parquet_rows_come_back_as_objects(tmp_path):
    rows = [{"text": "a", "meta": {"n": 1, "tags": ["x"]}}, {"text": "b", "meta": {"n": 2, "tags": []}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert [r.value for r in read_records(str(tmp_path / "rows.parquet"))] == rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', "rows.jsonl:3: not valid JSON"),
        (b'{"a": "\xff"}', "rows.jsonl:3: not UTF-8"),
        (b"[1, 2]", "rows.jsonl:3: a record must be a JSON object, this is list"),
        (b"[" * 200_000, "rows.jsonl:3: nested too deeply"),
    ],
)
def test_a_corrupt_line_is_named_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(InputError, match=message):
        list(read_records(str(path)))


def test_a_torn_parquet_file_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"a": 1}]), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"rows\.parquet: not readable as parquet"):
        list(read_records(str(path)))


def test_reading_goes_on_from_the_byte_offset_of_any_record(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 0}\r\n\n{"n": "\xc3\xa9"}\n{"n": 2}')
    records = list(read_records(str(path)))
    assert [record.value["n"] for record in records] == [0, "é", 2]
    for index, record in enumerate(records):
        again = list(read_records(str(path), start=record.offset))
        assert [r.value for r in again] == [r.value for r in records[index:]]


def test_a_missing_or_mistyped_field_names_file_line_and_what_is_there(tmp_path):
    (record,) = read_records(write_lines(tmp_path / "a.jsonl", [{"text": 3, "yes": True}]))
    with pytest.raises(InputError, match=r"a\.jsonl:1: no field 'label' \(the record has text, yes\)"):
        record.field("label", int)
    with pytest.raises(InputError, match=r"a\.jsonl:1: field 'text' is int, expected str"):
        record.field("text")
    with pytest.raises(InputError, match="is bool, expected int"):
        record.field("yes", int)


def test_the_facts_of_a_file_are_its_hash_size_and_rows(tmp_path):
    files = [write_lines(tmp_path / "a.jsonl", MIXED), write_lines(tmp_path / "b.jsonl", MIXED[:2])]
    records, facts = read_all(files)
    assert len(records) == 7
    assert [fact.rows for fact in facts] == [5, 2]
    raw = (tmp_path / "a.jsonl").read_bytes()
    assert facts[0].sha256 == hashlib.sha256(raw).hexdigest()
    assert facts[0].bytes == len(raw) == describe_file(files[0], 5).bytes


def test_files_are_found_by_path_folder_and_glob_each_once(tmp_path):
    folder = tmp_path / "batches" / "inner"
    folder.mkdir(parents=True)
    b, a = write_lines(folder / "b.jsonl", MIXED), write_lines(folder / "a.jsonl", MIXED)
    (folder / "notes.txt").write_text("not data")
    assert find_files(str(tmp_path / "batches")) == [a, b]
    assert find_files([b, str(folder / "*.jsonl")]) == [b, a]
    with pytest.raises(InputError, match=r"settings\.train: .*matches no"):
        find_files(str(tmp_path / "nothing"), setting="train")


def test_a_wrong_json_document_is_named_by_line_and_column(tmp_path):
    path = tmp_path / "set.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(InputError, match=r"set\.json:2:7: not valid JSON"):
        read_json(str(path))


def test_the_split_is_a_function_of_the_seed_and_never_empty():
    first, second = split(list(range(629)), 0.2, seed=42)
    assert (len(first), len(second)) == (503, 126)
    assert sorted(first + second) == list(range(629))
    assert split(list(range(629)), 0.2, seed=42) == (first, second)
    assert split(list(range(629)), 0.2, seed=43) != (first, second)
    with pytest.raises(InputError, match=r"settings\.validation_fraction: 0\.2 of 2 examples leaves an empty split"):
        split([1, 2], 0.2, seed=0)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (rb'{"text": "cut \ud83d"}', "half of a surrogate pair"),
        (rb'{"meta": {"tags": ["\uDC00"]}}', "half of a surrogate pair"),
        (rb'{"\udfff": 1}', "half of a surrogate pair"),
        (b'{"n": ' + b"9" * 5000 + b"}", "a number of over 4,300 digits"),
    ],
)
def test_what_python_reads_and_nothing_else_can_hold_is_named_with_its_place(tmp_path, name, value, message):
    good = rb'{"text": "whole \ud83d\ude00"}'
    content = b"\n".join([good, good, value]) if name.endswith("l") else b"[" + b", ".join([good, good, value]) + b"]"
    (tmp_path / name).write_bytes(content)
    place = f"{name}:3" if name.endswith("l") else (f"{name}: item 3" if "half" in message else name)
    with pytest.raises(InputError) as error:
        read_all([str(tmp_path / name)])
    assert place in str(error.value) and message in str(error.value)
