"""Job files: every kind of bad input gives the exact place and a sentence, all at once; good ones give a Job."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.domain.job import (
    Checkpoints,
    Code,
    DataFrom,
    Environment,
    Hub,
    Job,
    Resources,
    Slurm,
    SmokeTest,
    Tolerances,
)
from runner.domain.recorded_job import read_job
from runner.jobfile import InvalidJobFile, changed_since, check, examine, json_schema, load

FIELDS_OF_A_JOB = [each.name for each in dataclasses.fields(Job) if each.init]
GOOD = """\
name: legal
recipe: classify
settings: {model: google/embeddinggemma-300m, train: data/batches}
data: [data/batches]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a script and requirements, which is the working directory."""
    (tmp_path / "data/batches").mkdir(parents=True)
    (tmp_path / "data/batches/a.jsonl").write_text("{}\n")
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "requirements.txt").write_text("numpy>=2  # numbers\n\n# nothing\ntqdm\n")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "run.sh").write_text("")
    (tmp_path / "environment.yml").write_text("name: x\n")
    (tmp_path / "bad.txt").write_text("torch\ntransformers=4.40 \\\n\npip install humanize\n")
    (tmp_path / "outside").symlink_to("/etc")
    (tmp_path / "linked.py").symlink_to("train.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems_of(text: str | bytes, overrides: tuple[str, ...] = ()) -> list[str]:
    Path("job.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        load("job.yaml", overrides)
    except InvalidJobFile as error:
        assert error.exit_code == 2
        return error.message.split("\n")
    return []


COMMAND = "name: a\noutputs: [models]\ncommand: [python, train.py]\n"
RECIPE = "name: a\nrecipe: classify\n"
TOKEN = "hf_" + "abcdefghijABCDEFGHIJabcdefghijABCD"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join(['*' + before] * 9)}]\n"
    for before, letter in zip("abcdefgh", "bcdefghi", strict=True)
)
# What cannot stand in wrong_jobs.txt, where all others are.
TABLE: dict[str, tuple[str | bytes, list[str]]] = {
    "not text": (b"name: \xff\xfe\n", ["1:7: not UTF-8 text: byte 0xff"]),
    "a control character": ("name: a\x07\n", ["1:8: a character that YAML does not allow: '\\x07'"]),
    "billion laughs": (LAUGHS, ["5:12: more than 20,000 values, aliases expanded: this is not a job file"]),
    "deep nesting": ("name: " + "[" * 5000, ["1:38: nested deeper than 32 levels: this is not a job file"]),
    "deep blocks": (
        "".join(" " * depth + "a:\n" for depth in range(200)),
        ["32:32: nested deeper than 32 levels: this is not a job file"],
    ),
    "too many values": (
        "name: [" + "1," * 30000 + "]",
        ["1:40002: more than 20,000 values, aliases expanded: this is not a job file"],
    ),
    "a token in a variable": (
        COMMAND + f"environment: {{variables: {{T: {TOKEN}}}}}\n",
        [
            "4:30: environment.variables.T must not hold a Hugging Face token: job files are kept and sent. "
            "Export it here and name the variable under secrets:"
        ],
    ),
    "a token where its name belongs": (
        COMMAND + f"secrets: [{TOKEN}=x]\n",
        ["4:11: secrets[0] must be the name of an environment variable, not '[redacted]=…': letters, digits and '_'"],
    ),
}
for case in (Path(__file__).parent / "wrong_jobs.txt").read_text().split("\n=== ")[1:]:
    title, _, body = case.partition("\n")
    text, _, said = body.partition(">>>\n")
    TABLE[title] = (text, said.strip().split("\n"))


@pytest.mark.parametrize("case", TABLE)
def test_a_wrong_job_file_names_every_place_and_what_is_wrong_there(case: str, folder: Path) -> None:
    text, expected = TABLE[case]
    lines = [line if line.startswith("HERE/") else f"job.yaml:{line}" for line in expected]
    assert problems_of(text) == [line.replace("HERE", str(folder)) for line in lines]


@pytest.mark.parametrize(
    ("line", "outputs", "command"),
    [
        ("outputs: models/", ("models",), ("python", "train.py")),
        ("outputs: [results/best, ./logs/]", ("results/best", "logs"), ("python", "train.py")),
        ('command: [python, train.py, --delimiter, "|"]', (), ("python", "train.py", "--delimiter", "|")),
        ('command: [bash, -c, "cd src && python -m a"]', (), ("bash", "-c", "cd src && python -m a")),
        ("command: |\n  cd src\n  python -m a | tee log\n\n", (), ("bash", "-ec", "cd src\npython -m a | tee log")),
        (
            "environment: {requirements: [git+https://github.com/a/b, --pre, 'c @ https://d.org/e.whl', f==1.*]}",
            (),
            None,
        ),
        ("environment: {requirements: ['torch[opt]==2.6.*; python_version < \"3.13\"']}", (), None),
        ("data: data/batches\nsecrets: WANDB_API_KEY\nhub: {models: a/b}\ncode: {exclude: '*.pt'}", (), None),
    ],
)
def test_what_people_write_and_is_right_is_taken(
    line: str, outputs: tuple[str, ...], command: tuple[str, ...] | None, folder: Path
) -> None:
    lines = ["name: a", *([] if "command:" in line else ["command: [python, train.py]"]), line]
    (folder / "job.yaml").write_text("\n".join(lines) + "\n")
    job = load("job.yaml")
    assert (job.outputs, job.command) == (outputs, command or ("python", "train.py"))


def test_a_merge_key_brings_what_is_not_given_itself(folder: Path) -> None:
    groups = "checkpoint: &often {every_steps: 10, keep: 2}, evaluation: {<<: *often, every_steps: 5}"
    wrong = problems_of(RECIPE + f"data: [data]\nsettings: {{model: a/b, train: data, {groups}}}\n")
    assert wrong == [
        "job.yaml:4:74: unknown key 'keep' in settings.evaluation: here that is settings: {checkpoint: {keep: …}}"
    ]
    (folder / "job.yaml").write_text(
        RECIPE + f"data: [data]\nsettings: {{model: a/b, train: data, {groups}}}\n".replace(", keep: 2", "")
    )
    assert load("job.yaml").settings["evaluation"]["every_steps"] == 5


def test_what_a_shell_would_expand_is_warned_about(folder: Path) -> None:
    (folder / "job.yaml").write_text(
        "name: a\noutputs: [m]\ncommand: [python, train.py, $DATA]\nenvironment: {variables: {P: '/x:$PATH'}}\n"
    )
    assert load("job.yaml").warnings == (
        "environment.variables.P: no shell reads it, so '$' stays as it is",
        'command: "$DATA" stays as it is, no shell reads it; [bash, -c, …] has one',
    )


def test_utf_16_and_carriage_returns_are_understood(folder: Path) -> None:
    assert problems_of("name: a\n".encode("utf-16")) == ["job.yaml:1:1: this is UTF-16 text: save the file as UTF-8"]
    assert problems_of(("\ufeff" + COMMAND + "resources: {gpu: 1}\n").replace("\n", "\r\n")) == [
        "job.yaml:4:13: unknown key 'gpu' in resources: did you mean gpus?"
    ]


def test_a_good_file_gives_a_job_with_settings_completed_and_the_model_among_the_hubs(folder: Path) -> None:
    (folder / "job.yaml").write_text(
        GOOD + "environment: {python: 3.10, requirements: requirements.txt, variables: {A: 010, B: yes, C: 1e3}}\n"
        "resources: {gpus: all, vram: 20GiB, disk: 30 GB}\ntime_limit: 1h30m\n"
    )
    job = load("job.yaml")
    assert (job.folder, job.file) == (folder, folder / "job.yaml")
    assert job.hub.models == ("google/embeddinggemma-300m",)
    assert job.settings["epochs"] == 3.0 and job.settings["lora"]["rank"] == 16
    assert job.environment.python == "3.10"  # not 3.1
    assert job.environment.variables == {"A": "010", "B": "yes", "C": "1e3"}
    assert job.environment.requirements == ("numpy>=2", "tqdm")
    assert (job.resources.gpus, job.resources.vram, job.resources.disk) == ("all", 20 << 30, 30 * 10**9)
    assert job.time_limit == 5400
    assert job.outputs == ("models", "logs", "reports", "checkpoints", "training_metadata.json")
    assert not job.pushes_code and job.warnings == ()


def test_words_of_a_command_are_text_as_they_are_written(folder: Path) -> None:
    (folder / "job.yaml").write_text(
        "name: a\ncommand: [python, train.py, --lr, 3e-4, --seed, 007, --amp, yes, true]\n"
    )
    job = load("job.yaml")
    assert job.command == ("python", "train.py", "--lr", "3e-4", "--seed", "007", "--amp", "yes", "true")
    assert job.pushes_code and job.outputs == ()
    assert job.warnings == ("outputs: is empty, so nothing comes home but the log",)


def test_numbers_are_read_as_yaml_1_2_reads_them(folder: Path) -> None:
    settings_line = (
        "settings: {model: a/b, train: data/batches, optimizer: {learning_rate: 3e-4}, max_length: 0x200, seed: 010}\n"
    )
    (folder / "job.yaml").write_text(f"name: a\nrecipe: classify\n{settings_line}data: [data/batches]\n")
    job = load("job.yaml")
    assert job.settings["optimizer"]["learning_rate"] == 3e-4
    assert (job.settings["max_length"], job.settings["seed"]) == (512, 10)


def test_a_bound_on_a_number_leaves_the_words_beside_it_alone(folder: Path) -> None:
    text = "name: a\nrecipe: classify\nsettings: {model: a/b, train: data, batch: {micro: %s}, max_steps: ~}\ndata: [data]\n"
    for micro in ("auto", 8):
        (folder / "job.yaml").write_text(text % micro)
        assert load("job.yaml").settings["batch"]["micro"] == micro
    assert problems_of(text % 0) == ["job.yaml:3:52: settings.batch.micro must be at least 1 or auto, not 0"]


def test_a_mapping_where_one_of_two_types_belongs_is_named_at_its_place(folder: Path) -> None:
    found = problems_of(RECIPE + "settings:\n  model: a/b\n  train: data\n  labels: {str: 1}\ndata: [data]\n")
    assert found == ["job.yaml:6:11: settings.labels must be a list, not a mapping"]
    found = problems_of(RECIPE + "settings:\n  model: a/b\n  train: data\n  batch: {micro: {int: 1}}\ndata: [data]\n")
    assert found == ["job.yaml:6:18: settings.batch.micro must be a whole number or auto, not a mapping"]


def test_a_local_model_inside_the_data_is_not_asked_of_the_hub(folder: Path) -> None:
    text = "name: a\nrecipe: classify\nsettings: {model: encoder, train: data/batches}\ndata: [data/batches, encoder]\n"
    (folder / "job.yaml").write_text(text)
    assert load("job.yaml").hub.models == ()


def test_a_job_survives_its_record(folder: Path) -> None:
    (folder / "job.yaml").write_text(GOOD + "resources: {vram: 1GiB, disk: 10KB}\ntime_limit: 90s\n")
    job = load("job.yaml")
    again = read_job(json.loads(json.dumps(job.wire())), job.folder)
    assert (again.wire(), again.folder) == (job.wire(), job.folder)
    assert again.resources == job.resources and again.time_limit == 90
    assert str(folder) not in str(job.wire())


def test_every_field_of_a_job_survives_its_record(folder: Path) -> None:
    job = Job(
        "a", recipe="sft", command=("x", "y"), settings={"model": "m", "epochs": 2}, code=Code("src", ("*.log",), ("a.env",)),
        data=("data", DataFrom("/mnt/x", "data/x")), environment=Environment("3.11", ("a==1",), "/usr/bin/python", {"A": "1"}),
        hub=Hub(("a/b",), True), resources=Resources("all", 2, 1 << 30, 1 << 31, 4), outputs=("models",),
        checkpoints=Checkpoints("out/step_*", "DONE"), smoke_test=SmokeTest(False, Tolerances(0.1, 0.2, 0.3)), price_per_hour=0.5,
        time_limit=90.0, cost_limit=3.0, secrets=("WANDB_API_KEY",), sweep={"settings.seed": (1, 2)}, keep_finished=2, queue=True,
        slurm=Slurm("p", "a", "q", "c", "r", "n", "x", "g", "1G", "2G", 1, 2, "i", True), progress=("tqdm",),
    )  # fmt: skip
    assert same_as_default(job) == [], "a field that this test does not set may be lost in the record"
    assert read_job(json.loads(json.dumps(job.wire())), folder).wire() == job.wire()


def same_as_default(value: Any, inside: str = "") -> list[str]:
    """The fields of a job file that have their default there, with those of the types inside."""
    found: list[str] = []
    for each in (each for each in dataclasses.fields(value) if each.init):
        given, name = getattr(value, each.name), f"{inside}{each.name}"
        if dataclasses.is_dataclass(given):
            found += same_as_default(given, f"{name}.")
        elif given in (each.default, None):
            found.append(name)
    return found


def test_overrides_win_and_their_errors_name_the_key(folder: Path) -> None:
    (folder / "job.yaml").write_text(GOOD)
    overrides = [
        "resources.gpus=2",
        "settings.epochs=0.5",
        "resources.gpus=3",
        "outputs=[models]",
        "hub={models: [c/d]}",
    ]
    job = load("job.yaml", overrides)
    assert (job.resources.gpus, job.settings["epochs"], job.outputs) == (3, 0.5, ("models",))
    assert job.hub.models == ("c/d", "google/embeddinggemma-300m")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("resources.gpus=two", "--set resources.gpus: resources.gpus must be a whole number (0 to 64) or all, not 'two'"),
        ("resources.gpu=2", "--set resources.gpu: unknown key 'gpu' in resources: did you mean gpus?"),
        ("name.first=a", "--set name.first: there is no key 'first' in a single value"),
        ("data.0=a", "--set data.0: there is no key '0' in a list"),
        ("data=[nowhere]", "--set data: data[0]: there is no 'nowhere' in 'HERE'"),
        ("name", "--set name: must be key=value, such as --set resources.gpus=2"),
        ("a..b=1", "--set a..b: must be key=value, such as --set resources.gpus=2"),
        ("name=[a", "--set name: not YAML: a ',' or the closing bracket is missing"),
        ("settings.epochs=.nan", "--set settings.epochs: settings.epochs must be a finite number, not '.nan'"),
        ("name=", "--set name: name must be text, not nothing"),
    ],
)  # fmt: skip
def test_a_wrong_override_names_its_key(override: str, message: str, folder: Path) -> None:
    assert message.replace("HERE", str(folder)) in problems_of(COMMAND + "data: [data/batches]\n", (override,))


def test_an_override_of_an_anchored_mapping_changes_one_place_only(folder: Path) -> None:
    groups = "settings: {model: a/b, train: data, checkpoint: &often {every_steps: 10}, evaluation: *often}"
    (folder / "job.yaml").write_text(RECIPE + groups + "\ndata: [data]\n")
    settings = load("job.yaml", ["settings.checkpoint.every_steps=20"]).settings
    assert (settings["checkpoint"]["every_steps"], settings["evaluation"]["every_steps"]) == (20, 10)


def test_a_requirements_file_reports_its_own_line(folder: Path) -> None:
    (folder / "requirements.txt").write_text("numpy\n-r more/extra.txt\n")
    (folder / "more").mkdir()
    (folder / "more/extra.txt").write_text("tqdm\n-e ../lib\n-r ../requirements.txt\n")
    found = problems_of(COMMAND + "environment: {requirements: requirements.txt}\n")
    assert found == [
        f"{folder}/more/extra.txt:2:1: requirements: '-e ../lib' installs a folder: the code lies in the run's working "
        "directory anyway, so leave the line out"
    ]


def test_a_file_that_cannot_be_a_job_is_refused_before_it_is_read(folder: Path) -> None:
    os.truncate(os.open("big.yaml", os.O_CREAT | os.O_WRONLY), 10 << 20)
    os.mkfifo("pipe.yaml")
    assert [str(problem) for problem in check(["big.yaml", "pipe.yaml", "data", "no.yaml", "/dev/zero"])] == [
        "big.yaml:1:1: 10,485,760 bytes are too many for a job file (the limit is 1 MiB)",
        "pipe.yaml:1:1: this is not a file",
        "data:1:1: this is not a file",
        "no.yaml:1:1: there is no such file: `gpurun init` writes one to start from",
        "/dev/zero:1:1: this is not a file",
    ]


def test_a_home_folder_is_not_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert problems_of(COMMAND) == [f"job.yaml:3:1: code.path is '{folder}': put the code into a folder of its own"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("job.yaml", COMMAND, []),
        ("job.yaml", COMMAND + "time_limit: 3h\n", []),
        ("job.yaml", COMMAND + "code: {exclude: [notes]}\n", ["code"]),
        ("job.yaml", COMMAND + "data: [data]\nenvironment: {python: '3.11'}\n", ["data", "environment"]),
        ("job.yaml", "name: [", ["it is no valid job file now"]),
        ("train.py", "print(2)\n", []),
    ],
)
def test_what_a_job_file_says_otherwise_after_it_was_read(folder: Path, file: str, text: str, said: list[str]) -> None:
    Path("job.yaml").write_text(COMMAND)
    job = load("job.yaml", ["price_per_hour=2"])
    Path(file).write_text(text)
    assert changed_since(job) == said


def test_an_edited_requirements_file_counts_and_a_job_file_that_is_gone_does_not(folder: Path) -> None:
    Path("job.yaml").write_text(COMMAND + "environment: {requirements: requirements.txt}\n")
    job = load("job.yaml")
    Path("requirements.txt").write_text("numpy>=1\n")
    assert changed_since(job) == ["environment"]
    Path("job.yaml").unlink()
    assert changed_since(job) == []


def test_a_program_that_goes_away_after_the_job_was_read_is_no_change_of_the_job_file(folder: Path) -> None:
    Path("job.yaml").write_text(COMMAND)
    job = load("job.yaml")
    Path("train.py").unlink()
    assert changed_since(job) == []


def test_the_schema_knows_every_field_with_a_description(folder: Path) -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(FIELDS_OF_A_JOB)
    assert all("description" in part for part in schema["properties"].values())
    classify = schema["$defs"]["settings-classify"]
    assert schema["$defs"]["Batch"]["properties"]["size"]["minimum"] == 1
    command = re.compile(schema["properties"]["command"]["anyOf"][1]["pattern"])
    for script, fits in (
        ("cd a\npython b\n", True),
        ("\n cd a \n\n b", True),
        ("python a\n", False),
        ("\n\na\n\n", False),
    ):
        assert bool(command.search(script)) == fits
    assert classify["additionalProperties"] is False and classify["required"] == ["model", "train"]


KEYS = [*FIELDS_OF_A_JOB, "gpus", "models", "requirements", "variables", "path", "vram"]
SCALARS = ["classify", "python", "a", "3", "1e9", ".inf", "true", "~", "20GiB", "..", "&a", "*a", "!!str"]
MARKS = [*"[]{}:,'\"|>#\t\n é\\\x85", "\n  ", "\n    ", "- ", ": ", "---", "? "]
WORDS = st.sampled_from([*KEYS, *SCALARS, *MARKS])
LIMITS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LIMITS
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_arbitrary_bytes_give_problems_with_places_never_a_traceback(folder: Path, raw: bytes) -> None:
    check_problems_are_lines(raw)


@LIMITS
@given(st.lists(WORDS, max_size=40).map("".join))
def test_words_of_job_files_in_any_order_give_problems_never_a_traceback(folder: Path, text: str) -> None:
    check_problems_are_lines(text.encode())


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [*FIELDS_OF_A_JOB, "settings.lora", "settings.labels", "environment.variables", "resources.vram", "hub.models"]
)


@LIMITS
@given(st.dictionaries(FIELDS, VALUES, min_size=1, max_size=4))
def test_values_of_any_shape_in_known_fields_give_problems_never_a_traceback(
    folder: Path, fields: dict[str, object]
) -> None:
    import yaml

    Path("job.yaml").write_text(GOOD)
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in fields.items()]
    job, problems = examine("job.yaml", overrides)
    assert (job is None) <= bool(problems)
    assert all(str(problem).isprintable() for problem in problems)


def check_problems_are_lines(raw: bytes) -> None:
    Path("job.yaml").write_bytes(raw)
    job, problems = examine("job.yaml", [])
    assert (job is None) <= bool(problems)
    for problem in problems:
        assert str(problem).startswith(f"job.yaml:{problem.place.line}:{problem.place.column}: ")
        assert problem.place.line >= 1 and problem.place.column >= 1
        assert str(problem).isprintable()
