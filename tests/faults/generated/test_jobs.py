"""Whatever is done to a job file, it is a job or errors ``path:line:col: message`` with exit code 2, and a suggestion that is followed
removes its error.

A trial takes good job files and does to each a few things that people and editors do: slips of the keyboard, keys and values of other
tools, broken indentation, tabs, typographic quotes. The suggestions are followed on the parsed file, as a person would on the text.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli.group import run
from runner.domain.job import Job
from runner.jobfile import InvalidJobFile, Problem, examine, load_runs
from tests.support.trials import trials

FILES = 4  # a trial
LINE = re.compile(r"(?P<path>[^:]+):(?P<line>[1-9][0-9]*):(?P<column>[1-9][0-9]*): (?P<message>\S.*)")
TOKEN = "hf_" + "aB3" * 12
OTHERS_KEYS = [
    'env', 'envs', 'run', 'script', 'setup', 'workdir', 'host', 'image', 'cpus', 'num_gpus', 'accelerators', 'gpu',
    'memory', 'requirements', 'python', 'timeout', 'artifacts', 'on', 'jobs', 'volumes', 'ports', 'lr',
    'batch_size', 'learning_rate', 'epochs', 'model', 'HF_HOME', 'Name', 'gpus', 'vram', 'outputs', 'data', 'path',
    'WANDB_MODE', '<<',
]  # fmt: skip
OTHERS_VALUES = [
    '1', 1, 1.0, 0, -1, 'A100:8', 'A100', '24G', '24Gi', '24GB+', '1:30', '2 hours', '1-00:00:00', 'yes', 'on',
    True, None, '', '3.1', '3.10', 'python3.11', '>=3.10', 'environment.yml', 'requirements.txt',
    'requirement.txt', 'humanize', 'transformers=4.40', 'pip install x y', 'torch transformers', 'sklearn', '../x',
    'models/', 'results/best', 'data', 'A=b', '{gpus}', '--lr 0.1', '–lr', '“a”', 'cd', '&&', '|',
    'python train.py --lr 1', 'a\nb\n', 'train.py', 'run.sh', './run.sh', './gone.sh', '$HOME/x', 'CUDA_VISIBLE_DEVICES=0', 'X=1',
    '1_000', '1e3', 10**30, float("inf"), '\xe9\u2028\x85', 'a/b', 'a/b/c', [], {}, ['a'],
    [['a']], {'a': 'b'}, {'gpus': None}, [{'--lr': 0.1}], TOKEN,
]  # fmt: skip
JUNK = [
    "\t", "\u00a0", "“", ":", "- ", "{", "[", '"', "'", "#", "&a ", "*a", "!!str ", "---\n", "\r\n", "%", "\ufeff", "\x07", "|", "> ",
]  # fmt: skip


def good(chance: random.Random) -> dict[str, Any]:
    """A job that validates, with some of what a job may have."""
    job: dict[str, Any] = {"name": chance.choice(["a", "legal", "run-1"])}
    if chance.random() < 0.4:
        job |= {"recipe": "classify", "data": ["data/batches"]}
        job["settings"] = {"model": "acme/encoder", "train": "data/batches", "epochs": 3, "batch": {"size": 8}}
    else:
        words = [
            ["python", "train.py", "--lr", "0.1"],
            ["bash", "-c", "cd src && python -m a"],
            ["torchrun", "train.py"],
        ]
        job |= {
            "command": chance.choice(words),
            "outputs": chance.choice([["models"], "models/", ["results/best", "log.txt"]]),
        }
    optional = {
        "environment": {"python": "3.11", "requirements": ["torch>=2.6", "numpy"], "variables": {"A": "1"}},
        "resources": {"gpus": 1, "vram": "20GiB"},
        "hub": {"models": ["acme/base"]},
        "secrets": ["WANDB_API_KEY"],
        "time_limit": "1h30m",
        "queue": True,
        "code": {"exclude": ["*.pt"]},
        "price_per_hour": 0.5,
    }
    for key in chance.sample(sorted(optional), chance.randint(0, 5)):
        job[key] = optional[key]
    return json.loads(json.dumps(job))  # nothing shared


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key and item."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path for key in keys for path in ((*above, key), *places(value[key], (*above, key)))]


def slip(job: dict[str, Any], chance: random.Random) -> str:
    """Does one thing to the job, and says what."""
    path = chance.choice(places(job) or [("name",)])
    inside: Any = job
    for key in path[:-1]:
        inside = inside[key]
    last = path[-1]
    value = copy.deepcopy(chance.choice(OTHERS_VALUES))  # no anchors
    act = chance.choice(["value", "value", "value", "rename", "foreign", "move", "drop", "wrap", "item"])
    if act == "value" and last in range(10**6) if isinstance(inside, list) else last in inside and act == "value":
        inside[last] = value
    elif act == "rename" and isinstance(inside, dict):
        typo = list(str(last))
        at = chance.randrange(len(typo))
        typo[at : at + 1] = chance.choice([[], [typo[at]] * 2, [typo[at].upper()], ["_"], ["\u00a0", typo[at]]])
        inside["".join(typo)] = inside.pop(last)
    elif act == "foreign":
        where = chance.choice([job, *(part for part in job.values() if isinstance(part, dict))])
        last, where[last] = last, where.get(last)
        where[chance.choice(OTHERS_KEYS)] = value
    elif act == "move" and isinstance(inside, dict) and last in inside:
        job[f"{last}"] = inside.pop(last)
    elif act == "drop" and isinstance(inside, dict):
        inside.pop(last, None)
    elif act == "wrap" and isinstance(inside, dict) and last in inside:
        inside[last] = [inside[last]] if chance.random() < 0.5 else {"x": inside[last]}
    elif isinstance(inside, list):
        inside.insert(chance.randint(0, len(inside)), value)
    return f"{act} at {'.'.join(map(str, path))} with {value!r}"


def scratch(text: str, chance: random.Random) -> tuple[str, str]:
    """Does one thing to the text, and says what."""
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    act = chance.choice(["junk", "indent", "double", "cut", "unquote", "endings"])
    if act == "junk":
        place, junk = chance.randint(0, len(text)), chance.choice(JUNK)
        return text[:place] + junk + text[place:], f"{junk!r} at character {place}"
    if act == "endings":
        return text.replace("\n", "\r\n"), "CRLF"
    if act == "unquote":
        return text.replace("'", "", 2), "two quotes taken away"
    line = lines[at]
    lines[at : at + 1] = {"indent": [" " + line], "double": [line, line], "cut": []}[act]
    return "\n".join(lines), f"{act} line {at + 1}"


def validated(path: str) -> tuple[int, list[str]]:
    """What ``gpurun validate`` ends with and prints, in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        run(["validate", path])
    return int(ended.value.code or 0), said.getvalue().split("\n")[:-1]


def check(path: str) -> list[Problem]:
    """The invariant's first half; the problems."""
    text = Path(path).read_bytes().decode("utf-8", "replace")
    job, problems = examine(path, [])
    problems = InvalidJobFile(problems).problems
    code, lines = validated(path)
    assert not any("Traceback" in line for line in lines), "\n".join(lines)
    if problems:
        assert code == 2 and lines == [str(problem) for problem in problems], (code, lines)
        for line in lines:
            found = LINE.fullmatch(line)
            assert found and line.isprintable(), line
            assert found["path"] != path or int(found["line"]) <= len(text.splitlines()) + 1, line
            assert TOKEN not in line, "a token is shown"
    else:
        assert isinstance(job, Job) and code == 0 and lines[0].startswith(f"ok  {path}"), (code, lines)
        with contextlib.suppress(InvalidJobFile):
            assert load_runs(path)
    return problems


def follow(problem: Problem, root: yaml.Node) -> bool:
    """Does to the parsed file what a suggestion says; whether there was one."""
    found = nodes_at(root, problem.place.line, problem.place.column)
    message = problem.message
    if not found:
        return False
    about_key = bool(re.search(r"unknown key|a key must|: leave it out$", message))
    parent, index, node, is_key = next((each for each in found if each[3] == about_key), found[0])
    if match := re.search(r": did you mean (\S+)\?", message):
        node.value = match[1]
    elif match := re.search(r": write as words (.+)$", message):
        if not isinstance(parent, yaml.SequenceNode):
            return False
        parent.value[index : index + 1] = compose(f"[{match[1]}]").value
    elif match := re.search(r": write (.+?)(?: in quotes| without quotes| \(names only.*\))?$", message):
        meant = compose(match[1])
        if message.startswith("command[") and isinstance(meant, yaml.SequenceNode):
            parent.value[:] = meant.value
        else:
            put(parent, index, is_key, meant)
    elif match := re.search(r": here that is (.+?)(?:, at the left margin)?$", message):
        _, value = parent.value.pop(index)
        merge(root, compose(match[1].replace("…", "PLACE")), value)
    elif re.search(r"leave (?:it|this word|the line) out$", message):
        del parent.value[index]
    else:
        return False
    return True


def nodes_at(root: yaml.Node, line: int, column: int) -> list[tuple[Any, int, yaml.Node, bool]]:
    """``(parent, index, node, is a key)`` of every node that begins there, the outer ones first."""
    found = []

    def look(parent: Any) -> None:
        for index, below in enumerate(parent.value):
            pair = below if isinstance(parent, yaml.MappingNode) else (below,)
            for part, node in enumerate(pair):
                if (node.start_mark.line + 1, node.start_mark.column + 1) == (line, column):
                    found.append((parent, index, node, len(pair) == 2 and part == 0))
                if not isinstance(node, yaml.ScalarNode):
                    look(node)

    look(root)
    return found


def put(parent: Any, index: int, is_key: bool, node: yaml.Node) -> None:
    if isinstance(parent, yaml.SequenceNode):
        parent.value[index] = node
    else:
        key, value = parent.value[index]
        parent.value[index] = (node, value) if is_key else (key, node)


def merge(root: Any, wanted: Any, value: yaml.Node) -> None:
    """Puts ``value`` at the place that ``wanted`` (one key in another) names below ``root``."""
    (key, inner), *_ = wanted.value
    for index, (known, below) in enumerate(root.value):
        if known.value == key.value and isinstance(below, yaml.MappingNode) and isinstance(inner, yaml.MappingNode):
            return merge(below, inner, value)
        if known.value == key.value:
            del root.value[index]
            break
    holder = yaml.MappingNode("tag:yaml.org,2002:map", [])
    root.value.append((key, holder if isinstance(inner, yaml.MappingNode) else value))
    if isinstance(inner, yaml.MappingNode):
        merge(holder, inner, value)
    return None


def compose(text: str) -> Any:
    return yaml.compose(text, yaml.SafeLoader)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data/batches").mkdir(parents=True)
    (tmp_path / "data/batches/a.jsonl").write_text("{}\n")
    for name in ("train.py", "run.sh", "environment.yml"):
        (tmp_path / name).write_text("")
    (tmp_path / "src").mkdir()
    (tmp_path / "requirements.txt").write_text("numpy\ntransformers=4.40\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    return tmp_path


@trials("jobs", quick=10, full=150)
def test_a_job_file_is_a_job_or_errors_with_places_and_a_suggestion_that_is_followed_helps(
    project: Path, chance: random.Random
) -> None:
    reached: Counter[str] = Counter()
    for number in range(FILES):
        job = good(chance)
        done = [slip(job, chance) for _ in range(chance.choice([0, 1, 1, 2, 3]) if number else 1)]
        if not number:
            job["num_gpus"] = 1  # one known slip, so that each trial has a suggestion to follow
        text = yaml.safe_dump(
            job, sort_keys=False, allow_unicode=True, default_flow_style=chance.choice([None, False, True])
        )
        for _ in range(chance.choice([0, 0, 0, 1, 2]) if number else 0):
            text, scratched = scratch(text, chance)
            done.append(scratched)
        Path("job.yaml").write_text(text, encoding="utf-8", newline="")
        history = f"done to it: {done}\n{text}"
        try:
            problems = check("job.yaml")
            reached["wrong" if problems else "good"] += 1
            for problem in problems:
                reached["followed"] += followed(problem, text, problems)
        except AssertionError as error:
            pytest.fail(f"{error}\n{history}", pytrace=False)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\n{history}")
    assert reached["wrong"] and reached["followed"], reached


def followed(problem: Problem, text: str, before: list[Problem]) -> bool:
    """The invariant's second half: whether there was a suggestion; then its error is gone."""
    doubled = any("is given twice" in each.message for each in before)  # which of the two is meant is not said
    if problem.path != "job.yaml" or problem.message.startswith("not YAML") or doubled:
        return False
    try:
        root = compose(text)
        if not isinstance(root, yaml.MappingNode) or not follow(problem, root):
            return False
        mended = yaml.serialize(root, allow_unicode=True)
    except yaml.YAMLError:
        return False  # what only the whole text says
    Path("mended.yaml").write_text(mended, encoding="utf-8", newline="")
    after = Counter(each.message for each in check("mended.yaml"))
    was = Counter(each.message for each in before)
    assert after[problem.message] < was[problem.message], f"followed, and still there: {problem}\n--- mended\n{mended}"
    return True
