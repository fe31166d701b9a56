"""From an exec channel to a running agent: what the laptop sends, what the box answers, before frames begin.

The laptop sends, at once and without waiting, ``<sha256> <n>`` and n bytes of frames: in the command line where they are short and other
users of the box may see them (OpenSSH opens a session with no window, so that standard input costs a round trip before its first
byte), else on standard input. The box answers with lines that begin with the nonce (everything else is the login shell's output):

    <nonce> ready <protocol version> <root> <identity> [home]
                                                frames follow; the agent works on the n bytes; ``home``: the root lies in the home folder
    <nonce> need <sha256>                       send ``<length>`` and the zipapp, compressed; ``ready`` comes next, the n bytes are kept
    <nonce> refused <reason> <text>             python (none ≥ 3.8), terminal (a PTY was forced on us), path (an odd home folder), root (no
                                                place to work)

So an agent that the box has already costs no round trip more than its first request. Where the laptop does not know yet which folder holds
the root, the program that it sends begins with ``agent/box/provider.py``, which chooses one. ``command`` builds what is sent, ``on_box`` is
the program that runs there, ``handshake`` reads its answers.
"""
