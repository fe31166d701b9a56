"""runner/domain/host.py: every spelling of an address, and what is refused before ssh sees it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.domain.errors import HostError
from runner.domain.host import Address, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("box", Address("box")),
        ("root@1.2.3.4", Address("1.2.3.4", "root")),
        ("root@1.2.3.4:41022", Address("1.2.3.4", "root", 41022)),
        ("ssh://root@1.2.3.4:41022/", Address("1.2.3.4", "root", 41022)),
        ("[2001:db8::1]:2222", Address("2001:db8::1", None, 2222)),
        ("root@2001:db8::1", Address("2001:db8::1", "root")),
        (
            "ssh -p 41022 root@1.2.3.4 -i ~/.ssh/key -L 8080:localhost:8080",
            Address("1.2.3.4", "root", 41022, "~/.ssh/key"),
        ),
        ("ssh -p41022 -l ubuntu host", Address("host", "ubuntu", 41022)),
        ("ssh -tt -o StrictHostKeyChecking=no root@ssh4.vast.ai -p 21", Address("ssh4.vast.ai", "root", 21)),
        ("ssh -J bastion,inner:2200 root@box", Address("box", "root", jump="bastion,inner:2200")),
    ],
)
def test_every_spelling_a_provider_shows_is_understood(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=touch /tmp/x",
        "root@-oProxyCommand=x",
        "ssh -oProxyCommand=x",
        "ssh root@-host",
        "ssh -i -oProxyCommand=x host",
        "ssh -J -oProxyCommand=x host",
        "host;reboot",
        "host name",
        "host\nother",
        "root@host:0",
        "root@host:70000",
        "root@host:２２",
        "ssh host rm -rf /",
        "ssh -p",
        "ssh 'unclosed",
        "$(reboot)@host",
        "[::1",
        "ssh://host/path",
    ],
)
def test_what_could_be_an_option_or_a_command_is_refused(text: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_address(text)
    assert caught.value.exit_code == 3
    assert caught.value.hint


@given(st.text(max_size=60))
def test_whatever_is_accepted_is_harmless_on_a_command_line(text: str) -> None:
    try:
        address = parse_address(text)
    except HostError:
        return
    for part in (address.name, address.user):
        assert part is None or (not part.startswith("-") and not set(part) & set(" ;|&$`'\"\\\n<>()"))
