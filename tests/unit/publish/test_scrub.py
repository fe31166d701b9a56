"""What is published holds no path of a machine and no secret, whatever stands around them; and what is none stays as it is."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import pytest

from remote_payload.publish.contents import Part, gather
from remote_payload.publish.problem import PublishProblem
from remote_payload.publish.scrub import TOPS, Scrubber

TRIALS = 300
HOME = Path("/home/ada lovelace")
WORK = Path("/scratch-7/team/ünï")
OWN_SECRET = "correct-horse-battery"
# What is no path of a machine and no secret: it must come out as it went in.
HARMLESS = [
    "Qwen/Qwen2.5-0.5B", "https://huggingface.co/home/data/models", "see http://host/var/lib/x?a=/b", "./models/best", "models/best",
    "/think", "/no_think", "</s>", "a/b/c", "and/or", "km/h", "1/2", "hf_transfer", "sk-learn", "apache-2.0", "~0.5", "C: drive",
    r"\n\t", "{{ messages }}", "10:30", "text-generation", "../shared/x", "loss 0.4/0.5", "", "☃",
]  # fmt: skip


def word(rng: random.Random) -> str:
    return "w" + "".join(rng.choices(string.ascii_lowercase, k=9))


def a_path(rng: random.Random, words: list[str], *, quoted: bool) -> str:
    """A path of a machine. Each folder's name, put into ``words``, tells that it was not taken out; the last part may stay."""
    middle = [word(rng) for _ in range(rng.randint(1, 4))]
    words += middle
    if quoted and rng.random() < 0.4:
        middle[0] += " of " + word(rng)  # a space inside
    last = rng.choice(["model", "adapter_model.safetensors", "base-7b"])
    below = "/".join([*middle, last])
    return rng.choice(
        [
            f"/{rng.choice(TOPS.split('|'))}/{below}",
            f"file:///{rng.choice(['home', 'mnt'])}/{below}",
            f"~/{below}",
            f"~{middle[0].split()[0]}/{below}",
            "C:\\" + below.replace("/", "\\"),
            "D:/" + below,
            "\\\\" + below.replace("/", "\\"),
            f"{HOME}/{below}",
            f"{WORK}/{below}",
        ]
    )


def a_secret(rng: random.Random) -> str:
    letters = "".join(rng.choices(string.ascii_letters + string.digits, k=34)) + "aZ9"
    body = "\n".join(word(rng) for _ in range(3))
    return rng.choice(
        [
            "hf_" + letters[:34], "api_org_" + letters[:34], "ghp_" + letters[:36], "sk-proj-" + "x1" + letters, OWN_SECRET,
            "AKIA" + "IOSFODNN7EXAMPLE", f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----",
        ]
    )  # fmt: skip


def nasty(rng: random.Random, banned: list[str], *, alone: bool = False) -> str:
    """A string with something in it that must not be published, added to ``banned``. ``alone``: one that may be a path as a whole."""
    if rng.random() < 0.4:
        secret = a_secret(rng)
        banned += secret.split("\n")
        return rng.choice(["{}", "token={}", "https://x:{}@host/a", "a {} b"]).format(secret)
    around = rng.choice(
        [
            "{}" if alone else "at {}",
            '"{}"',
            "`{}`",
            "base is '{}'.",
            "dir={}",
            "see {}, there",
            "({})",
            "a\n{}\nb",
            "[x]({})",
        ]
    )
    quoted = around == "{}" or any(mark in around for mark in "\"'`")
    return around.format(a_path(rng, banned, quoted=quoted))


def nest(rng: random.Random, leaf: str) -> object:
    """The string somewhere in a document, as a value or a key."""
    for _ in range(rng.randint(0, 3)):
        leaf = rng.choice([lambda x: [1, x], lambda x: {"a": x, "b": None}, lambda x: {"list": [x, 2.5, True]}])(leaf)  # type: ignore[no-untyped-call]
    return {leaf: 1} if isinstance(leaf, str) and rng.random() < 0.3 else {"key": leaf}


@pytest.fixture
def scrubber(monkeypatch: pytest.MonkeyPatch) -> Scrubber:
    monkeypatch.setattr(Path, "home", lambda: HOME)
    monkeypatch.setattr(Path, "cwd", lambda: WORK)
    return Scrubber([OWN_SECRET])


@pytest.mark.parametrize("seed", range(TRIALS))
def test_nothing_of_a_path_or_a_secret_is_left(seed: int, scrubber: Scrubber) -> None:
    rng, banned = random.Random(seed), list[str]()
    document = [nest(rng, nasty(rng, banned, alone=True)) for _ in range(5)]
    texts = [nasty(rng, banned) + " " + rng.choice(HARMLESS) for _ in range(5)]
    out = json.dumps(scrubber.value(document), ensure_ascii=False) + "\n".join(map(scrubber.text, texts))
    assert [each for each in banned if each and each in out] == []
    assert str(HOME) not in out and str(WORK) not in out


@pytest.mark.parametrize("seed", range(20))
def test_scrubbing_twice_changes_nothing_more(seed: int, scrubber: Scrubber) -> None:
    rng = random.Random(seed)
    text, value = nasty(rng, []), nest(rng, nasty(rng, [], alone=True))
    assert scrubber.text(scrubber.text(text)) == scrubber.text(text)
    assert scrubber.value(scrubber.value(value)) == scrubber.value(value)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_path_and_no_secret_stays(text: str, scrubber: Scrubber) -> None:
    assert scrubber.text(text) == text
    assert scrubber.value({text: [text]}) == {text: [text]}


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "vocab.txt", "chat_template.jinja", "smoke/inputs.jsonl", "tokenizer_config.json"]
)
def test_a_secret_where_nothing_may_change_ends_it(name: str, tmp_path: Path, scrubber: Scrubber) -> None:
    secret = "hf_" + "abcdefghijABCDEFGHIJabcdefghijABCD"
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"chat_template": f"{{{{ x }}}} {secret}"}))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(PublishProblem, match="holds a secret") as caught:
        gather([Part(tmp_path)], scrubber, public=False)
    assert secret not in caught.value.message + caught.value.meaning + caught.value.hint


def test_a_secret_in_the_notes_of_the_weights_ends_it(tmp_path: Path, scrubber: Scrubber) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"made": f"by {OWN_SECRET}"})
    with pytest.raises(PublishProblem, match=r"model\.safetensors holds a secret"):
        gather([Part(tmp_path)], scrubber, public=False)
