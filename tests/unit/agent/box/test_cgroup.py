"""What the control group counts, in both versions' words."""

import pytest

from remote_payload.agent.box import cgroup


@pytest.mark.parametrize(
    ("place", "text", "count"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("memory.events", "low 0\n", None),
        ("memory.events", "oom_kill many\n", None),
    ],
)
def test_processes_ended_for_want_of_memory_are_counted(tmp_path, place, text, count):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(text)
    assert cgroup.oom_kills(str(tmp_path)) == count


def test_a_machine_without_control_groups_counts_nothing(tmp_path):
    assert cgroup.oom_kills(str(tmp_path)) is None
