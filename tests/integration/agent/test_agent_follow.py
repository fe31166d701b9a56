"""Following through a real agent: every byte once, whatever happens to the connection or the file."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire import protocol
from runner.domain.errors import RunLost
from tests.support.agent import launch, log_of, run_id, running_agent, status, until_finished, wait_until

# Writes numbered lines (and a few odd bytes) at about a megabyte a second for as many seconds as asked.
CHATTER = """
import os, sys, time
for number in range(int(sys.argv[1]) * 50):
    os.write(1, b"".join(b"%09d \\xff\\x00\\r%s\\n" % (number * 100 + i, b"x" * 190) for i in range(100)))
    time.sleep(0.02)
"""


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Copy:
    """A laptop's copy of a log: writes what comes at the end of what it has, and refuses anything else."""

    def __init__(self):
        self.data = bytearray()
        self.notices = []
        self.generation = ""
        self.final = None

    def take(self, frame):
        if frame.type == protocol.LOG:
            (offset,) = protocol.OFFSET.unpack_from(frame.payload)
            assert offset == len(self.data), "a byte was sent twice or left out"
            self.data += frame.payload[protocol.OFFSET.size :]
        elif frame.type == protocol.PROGRESS:
            notice = frame.json().get("log", {})
            self.notices.append(notice)
            self.generation = notice.get("generation", self.generation)
        elif frame.type == protocol.RESULT:
            self.final = frame.json()

    def args(self, run):
        return {"run_id": run, "log": {"offset": len(self.data), "generation": self.generation}}


def test_a_log_followed_over_a_connection_that_is_cut_all_the_time_is_equal_to_the_byte(home, paths):
    run, copy, cuts = run_id(), Copy(), 0
    with running_agent(home) as agent:
        launch(agent, [sys.executable, "-c", CHATTER, "4"], run)
    while copy.final is None:
        cut_after = len(copy.data) + 150_000
        try:
            with running_agent(home) as agent:
                for frame in agent.stream("follow", copy.args(run)):
                    copy.take(frame)
                    if len(copy.data) > cut_after:
                        cuts += 1
                        raise ConnectionError("cut")
        except ConnectionError:
            continue
    assert cuts > 5
    assert hashlib.sha256(copy.data).hexdigest() == sha256(paths.run(run).log)
    assert copy.final["status"]["outcome"] == "succeeded"


def test_two_clients_follow_one_run_and_both_have_all_of_it(home, paths):
    run = run_id()
    logs = {}

    def follow(name):
        with running_agent(home) as agent:
            logs[name] = log_of(agent, run)

    with running_agent(home) as agent:
        launch(agent, [sys.executable, "-c", CHATTER, "1"], run)
        clients = [threading.Thread(target=follow, args=(name,)) for name in "ab"]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert hashlib.sha256(logs["a"]).hexdigest() == hashlib.sha256(logs["b"]).hexdigest() == sha256(paths.run(run).log)


def test_output_arrives_when_it_is_written_and_the_last_line_is_not_lost(agent):
    run = run_id()
    launch(agent, ["sh", "-c", "for i in 1 2 3; do date +%s.%N; sleep 0.3; done; printf end; exit 3"], run)
    delays, data = [], b""
    for frame in agent.stream("follow", {"run_id": run}):
        if frame.type == protocol.LOG:
            data += frame.payload[8:]
            if frame.payload.endswith(b"\n"):
                delays.append(time.time() - float(frame.payload[8:].split()[-1]))
    assert data.endswith(b"\nend")
    print("seconds from write to read:", delays)


def test_events_come_beside_the_log_with_their_own_offsets(agent):
    run = run_id()
    step = '{"t":1,"type":"step","step":1,"total":2,"loss":0.5}'
    launch(agent, ["sh", "-c", f"echo '{step}' >> $GPURUN_EVENTS; echo hello"], run)
    events, at = b"", 0
    for frame in agent.stream("follow", {"run_id": run}):
        if frame.type == protocol.EVENTS:
            assert protocol.OFFSET.unpack_from(frame.payload)[0] == at
            events += frame.payload[8:]
            at = len(events)
    lines = [json.loads(line) for line in events.splitlines()]
    assert lines[0]["loss"] == 0.5 and lines[-1]["type"] == "ended"
    assert status(agent, run)["progress"]["step"]["step"] == 1
    resumed = [
        f.payload
        for f in agent.stream("follow", {"run_id": run, "events": {"offset": at}})
        if f.type == protocol.EVENTS
    ]
    assert resumed == []


def test_what_is_there_now_can_be_asked_for_without_waiting_for_the_end(agent):
    run = run_id()
    launch(agent, ["sh", "-c", "echo one; exec sleep 60"], run)
    wait_until(lambda: status(agent, run)["log_size"] == 4)
    assert log_of(agent, run, until_end=False) == b"one\n"
    agent.call("stop", {"run_id": run, "grace": 1})


@pytest.mark.parametrize(("count", "expected"), [(0, b""), (1, b"3\n"), (2, b"2\n3\n"), (9, b"1\n2\n3\n")])
def test_the_last_lines_can_be_asked_for(agent, count, expected):
    run = run_id()
    launch(agent, ["sh", "-c", "printf '1\\n2\\n3\\n'"], run)
    log_of(agent, run)
    assert log_of(agent, run, tail=count) == expected


def test_a_log_that_is_replaced_or_cut_is_said_and_starts_again(agent, paths):
    run, copy = run_id(), Copy()
    launch(agent, ["sleep", "60"], run)
    log = paths.run(run).log

    def follow():
        for frame in agent.stream("follow", {"run_id": run}):
            if frame.type == protocol.PROGRESS and "change" in frame.json().get("log", {}):
                copy.data.clear()
            copy.take(frame)

    follower = threading.Thread(target=follow)
    follower.start()
    with open(log, "ab") as file:
        file.write(b"old text\n")
    wait_until(lambda: copy.data == b"old text\n")
    with open(log + ".new", "wb") as file:
        file.write(b"another file\n")
    os.rename(log + ".new", log)
    wait_until(lambda: copy.data == b"another file\n")
    with open(log, "r+b") as file:
        file.truncate(3)
    wait_until(lambda: copy.data == b"ano")
    agent.call("stop", {"run_id": run, "grace": 1})
    follower.join()
    assert [notice["change"] for notice in copy.notices if "change" in notice] == ["replaced", "truncated"]


def test_a_copy_of_another_generation_starts_again(agent, paths):
    run = run_id()
    launch(agent, ["echo", "hello"], run)
    log_of(agent, run)
    frames = list(agent.stream("follow", {"run_id": run, "log": {"offset": 3, "generation": "another"}}))
    notices = [frame.json()["log"] for frame in frames if frame.type == protocol.PROGRESS and "log" in frame.json()]
    assert (notices[0]["change"], notices[0]["offset"]) == ("replaced", 0)
    assert b"".join(frame.payload[8:] for frame in frames if frame.type == protocol.LOG) == b"hello\n"


def test_a_gigabyte_without_a_newline_costs_the_agent_little_memory(home):
    run = run_id()
    seen, peak = 0, 0
    with running_agent(home) as agent:
        launch(agent, ["sh", "-c", "head -c 300000000 /dev/zero | tr '\\0' x"], run)
        pid = agent._pipe.process.pid
        for frame in agent.stream("follow", {"run_id": run}):
            if frame.type == protocol.LOG:
                seen += len(frame.payload) - 8
        with open(f"/proc/{pid}/status") as file:
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    assert seen == 300_000_000
    assert peak < 40 * 1024  # KiB


def test_the_log_quota_keeps_the_newest_part_and_the_offsets_true(home, paths):
    run = run_id()
    limit = 4 << 20
    program = (
        "import os,time\n"
        "for n in range(200000): os.write(1, b'%08d %s\\n' % (n, b'y' * 90))\n"
        "time.sleep(2.5); print('end', flush=True)"
    )
    with running_agent(home) as agent:
        launch(agent, [sys.executable, "-c", program], run, log_limit=limit)
        wait_until(lambda: status(agent, run)["phase"] == "finished")
        whole = 200_000 * 100 + 4
        found = os.stat(paths.run(run).log)
        assert found.st_size == whole
        assert found.st_blocks * 512 <= limit + (1 << 20)
        gaps, data, at = [], b"", None
        for frame in agent.stream("follow", {"run_id": run}):
            if frame.type == protocol.PROGRESS and frame.json().get("log", {}).get("change") == "gap":
                gaps.append((frame.json()["log"]["offset"], frame.json()["log"]["bytes"]))
            elif frame.type == protocol.LOG:
                at = protocol.OFFSET.unpack_from(frame.payload)[0] if at is None else at
                data += frame.payload[8:]
    assert gaps == [(0, at)]
    assert at + len(data) == whole and b"\0" not in data
    number, inside = divmod(at, 100)
    assert data.startswith((b"%08d " % number + b"y" * 90 + b"\n")[inside:]) and data.endswith(b"end\n")
    assert len(data) > limit // 2


def test_a_run_that_nobody_knows_is_an_error(agent):
    with pytest.raises(RunLost, match="knows no run"):
        list(agent.stream("follow", {"run_id": run_id()}))


def test_the_end_of_an_orphan_ends_its_followers(agent, paths):
    run = run_id()
    launch(agent, ["sh", "-c", "sleep 1; echo last words"], run)
    os.kill(read_json(paths.run(run).owner)["pid"], signal.SIGKILL)
    frames = list(agent.stream("follow", {"run_id": run}))
    assert frames[-1].json()["status"]["outcome"] == "lost"
    assert b"".join(frame.payload[8:] for frame in frames if frame.type == protocol.LOG) == b"last words\n"


def test_a_follower_that_is_cancelled_ends_and_the_agent_goes_on(agent):
    run = run_id()
    launch(agent, ["sleep", "60"], run)
    for _ in agent.stream("follow", {"run_id": run}):
        break
    assert status(agent, run)["phase"] == "running"
    agent.call("stop", {"run_id": run, "grace": 1})


def test_beats_come_while_nothing_else_does(home):
    process = subprocess.Popen(
        [sys.executable, "-m", "remote_payload.agent", "serve", "0" * 32],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HOME": str(home)},
    )
    process.stdout.readline()
    frame = protocol.read_frame(process.stdout.read)
    assert (frame.type, frame.stream) == (protocol.BEAT, 0)
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


def test_the_times_of_the_log_stand_in_the_events_and_the_log_is_the_payloads_own(home, paths):
    """Two lines, the second after the box has noted the first; what ends without a line break is noted too."""
    run = run_id()
    program = (
        "import os, sys, time\n"
        "os.write(1, b'first\\n')\n"
        "while '\"log\"' not in open(os.environ['GPURUN_EVENTS']).read(): time.sleep(0.05)\n"
        "os.write(1, b'second\\nend')\n"
    )
    with running_agent(home) as agent:
        launch(agent, [sys.executable, "-c", program], run)
        until_finished(agent, run)
    with open(paths.run(run).log, "rb") as log, open(paths.run(run).events) as file:
        assert log.read() == b"first\nsecond\nend"
        noted = [event for event in map(json.loads, file) if event["type"] == "log"]
    assert [event["size"] for event in noted] == [6, 16]
    assert noted[0]["t"] < noted[1]["t"] <= time.time()
