import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from remote_payload.agent.box.pythons.requirement import parse, unsatisfied

numbers = st.integers(0, 3).map(str)
releases = st.lists(numbers, min_size=1, max_size=4).map(".".join)
suffixes = st.sampled_from(["", "a1", "b2", "rc1", ".post1", ".dev3", "a1.dev2", "rc1.post2", ".post1.dev2"])
versions = st.builds(lambda e, r, s: e + r + s, st.sampled_from(["", "", "", "1!"]), releases, suffixes)
installed = st.builds(lambda v, local: v + local, versions, st.sampled_from(["", "", "+cpu", "+cu126", "+1.2"]))


def reference(specifiers, version):
    """Pre-releases only where one is named, which is how a resolver sees an installed package."""
    wanted = SpecifierSet(specifiers)
    return wanted.contains(version, prereleases=bool(wanted.prereleases))


@given(installed, st.sampled_from(["==", "!=", "<=", ">=", "<", ">"]), versions)
@settings(max_examples=600, deadline=None)
def test_each_operator_agrees_with_the_reference_implementation(version, operator, bound):
    ours = parse(f"x{operator}{bound}")[0].accepts(version)
    assert ours == reference(f"{operator}{bound}", version)


@given(installed, st.sampled_from(["==", "!="]), releases)
@settings(max_examples=400, deadline=None)
def test_wildcards_agree_with_the_reference_implementation(version, operator, prefix):
    ours = parse(f"x{operator}{prefix}.*")[0].accepts(version)
    assert ours == reference(f"{operator}{prefix}.*", version)


@given(installed, st.lists(numbers, min_size=2, max_size=4).map(".".join), suffixes)
@settings(max_examples=400, deadline=None)
def test_compatible_release_agrees_with_the_reference_implementation(version, bound, suffix):
    ours = parse(f"x~={bound}{suffix}")[0].accepts(version)
    assert ours == reference(f"~={bound}{suffix}", version)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("2.6.0+cu124", True), ("2.13.0+cpu", True), ("2.5.1", False), ("2.14.0.dev20260101", False), ("3.0", False)],
)
def test_the_range_of_torch_accepts_local_builds_and_no_nightly(version, accepted):
    assert parse("torch>=2.6,<3")[0].accepts(version) is accepted


def test_comments_hashes_extras_and_continuations_are_read():
    text = "# head\nA_b.c[x,y] >= 1.0, <2  # why\n\ntorch==2.13.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nplain\n"
    parsed = parse(text)
    assert [each.name for each in parsed] == ["a-b-c", "torch", "plain"]
    assert unsatisfied(parsed, {"a-b-c": "1.5", "torch": "2.13.0+cu130"}) == [parsed[2]]


@pytest.mark.parametrize(
    "line",
    [
        'x>=1; python_version < "3.9"',
        "-r other.txt",
        "--index-url https://x",
        "git+https://host/x",
        "x @ https://host/x.whl",
        "x>=1 y",
        "x>>1",
        "./folder",
    ],
)
def test_what_is_more_than_a_name_and_versions_is_refused_by_name(line):
    with pytest.raises(ValueError, match="not a plain requirement"):
        parse("six\n" + line)


@pytest.mark.parametrize("version", ["", "unknown", "1.0.0-SNAPSHOT", "9" * 300])
def test_an_unreadable_version_satisfies_nothing(version):
    assert not parse("x")[0].accepts(version)
