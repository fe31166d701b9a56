"""Which lines of requirements may go to a box: what pip would refuse there is refused here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from runner.jobfile.requirement_lines import PLAIN, refusal


@pytest.mark.parametrize(
    "line",
    [
        "torch",
        "torch>=2.6",
        "torch[a,b]>=2.6,<3",
        "torch~=2.6",
        "torch==2.6.*",
        "torch==2.6+cu124",
        "torch; python_version < '3.12'",
        "torch==2.6 --hash=sha256:" + "0" * 64,
        "torch==2.6 --hash sha256:" + "0" * 64 + " --hash=sha512:" + "a" * 128,
        "package @ https://example.org/package.whl",
        "https://example.org/package-1.0-py3-none-any.whl#sha256=" + "0" * 64,
        "https://example.org/package.tar.gz ; python_version < '3.12'",
        "git+https://github.com/acme/package@main#egg=package",
        "git+ssh://git@github.com/acme/package",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-i https://example.org/simple --trusted-host example.org",
        "--pre",
        "--no-binary :all:",
    ],
)
def test_what_pip_reads_is_sent(line: str) -> None:
    assert refusal(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "torch[a b]",
        "torch[,,a]",
        "torch~=2",
        "torch>=2.6 --hash=garbage",
        "torch>=2.6 --hash=sha256:xyz",
        "torch; python_version",
        "https://example.org/package.whl ; garbage",
        "git+https://github.com/acme/package ; python_version",
        "git+ssh://???",
        "https:///package.whl",
    ],
)
def test_what_is_no_requirement_is_refused(line: str) -> None:
    assert "is not a requirement" in str(refusal(line))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--index-url", "needs a value"),
        ("-i", "needs a value"),
        ("--pre torch", "'torch' does not belong there"),
        ("-i https://example.org/simple torch", "'torch' does not belong there"),
        ("--no-index=yes", "takes no value"),
        ("--cuda", "is no option that a requirements file has"),
        ("--pre --cuda", "is no option that a requirements file has"),
        ("--index-url 'https://example.org", "a quote is opened and not closed"),
    ],
)
def test_an_option_without_its_value_or_with_more_is_refused(line: str, why: str) -> None:
    assert why in str(refusal(line))


@given(st.from_regex(PLAIN, fullmatch=True))
def test_what_is_taken_without_the_reader_of_the_standard_is_a_requirement_to_it(line: str) -> None:
    Requirement(line)
