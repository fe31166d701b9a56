"""Verb ``reach``: whether the boxes of one run can talk to each other, before anything is sent to them.

Each box listens and tells where; then each connects to the others. So a network is found that lets all of them in, in both directions:
NCCL and gloo open connections from every box to every other, on ports that they choose.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from remote_payload.agent.box import provider
from remote_payload.agent.box.network import peers
from remote_payload.agent.box.network.interfaces import list_interfaces
from remote_payload.agent.box.network.peers import Peer
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Reach

LONGEST = 120.0  # seconds for which a box listens
PORTS = 2  # for the rendezvous of torchrun, and for the supervisors
# What RunPod's Instant Clusters tell each node: https://docs.runpod.io/instant-clusters/configuration
CLUSTER = ("PRIMARY_ADDR", "NODE_ADDR", "NODE_RANK", "NUM_NODES")


def reach(request: Request) -> Reach:
    """How the network is: ``{reached: [{address, error, latency, rate}], served}``; seconds there and back, and bytes a second.

    With ``listen: {greeting, reply}`` the box listens until the request is cancelled; a notice tells ``{ports, interfaces: [{name,
    address}], cluster}`` first. With ``peers: [{address, port, greeting, reply}]`` it connects to each: to all at once, or, where
    there are ``seconds`` of data to send to each, to one after the other. Raises BoxNotReady where no port is free.
    """
    asked = request.fields()
    listening = asked.optional_fields("listen")
    if listening is not None:
        return {"reached": [], "served": _listen(request, *_words(listening))}
    seconds = min(asked.optional_number("seconds") or 0.0, 10.0)
    targets = [Peer(each.text("address"), each.whole("port"), *_words(each)) for each in asked.list_of_fields("peers")]
    with ThreadPoolExecutor(1 if seconds else max(1, len(targets))) as pool:
        found = list(pool.map(lambda peer: peers.reach(peer, seconds), targets))
    return {
        "reached": [
            {"address": each.address, "error": each.error, "latency": each.latency, "rate": each.rate} for each in found
        ],
        "served": 0,
    }


def _listen(request: Request, greeting: str, reply: str) -> int:
    try:
        doors = peers.listen(PORTS)
    except OSError as error:
        raise AgentError("BoxNotReady", "the box cannot listen for the others: %s" % error) from None
    try:
        request.progress(
            {
                "ports": [door.getsockname()[1] for door in doors],
                "interfaces": [each._asdict() for each in list_interfaces()],
                "cluster": provider.read_variables(CLUSTER),
            }
        )
        return peers.answer_peers(doors, greeting, reply, request.cancelled, LONGEST)
    finally:
        for door in doors:
            door.close()


def _words(asked: Fields) -> tuple[str, str]:
    words = asked.text("greeting"), asked.text("reply")
    if any(len(word) != peers.WORDS or not word.isalnum() or not word.isascii() for word in words):
        raise AgentError("GpurunError", "a greeting and a reply are %d letters and digits" % peers.WORDS)
    return words
