"""remote_payload/agent/box/provider.py and place.py: the kind of a box and what its folders survive. The whole way:
tests/e2e/test_what_a_stop_keeps.py."""

import os
import random

import pytest

from remote_payload.agent.box import place, provider
from remote_payload.agent.box.provider import Mount, Provider, find_volume, mount_of, read_mounts, read_provider

KINDS = ("overlay", "tmpfs", "proc", "ext4", "xfs", "fuse", "nfs4", "ceph", "cgroup2", "devtmpfs")
FOLDERS = (
    "/",
    "/workspace",
    "/data",
    "/mnt/store",
    "/etc/hosts",
    "/usr/bin/nvidia-smi",
    "/dev/shm",
    "/root",
    "/opt/two words",
    "/proc",
)


def proc(tmp_path, first, own=b"", mounts=""):
    for process, environ in (("1", first), ("self", own)):
        (tmp_path / process).mkdir()
        if environ is not None:
            (tmp_path / process / "environ").write_bytes(environ)
    (tmp_path / "self" / "mounts").write_text(mounts)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("first", "own", "expected"),
    [
        (b"PATH=/bin\0RUNPOD_POD_ID=k3x9\0RUNPOD_API_KEY=rpa_secret\0", b"", ("runpod", "k3x9")),
        (None, b"RUNPOD_POD_ID=k3x9\0", ("runpod", "k3x9")),  # process 1 belongs to another user
        (b"CONTAINER_ID=27141\0CONTAINER_API_KEY=secret\0", b"", ("vast", "27141")),
        (b"VAST_CONTAINERLABEL=C.27141\0", b"", ("vast", "27141")),
        (b"VAST_CONTAINERLABEL=mine\0", b"", ("vast", "")),
        (b"CONTAINER_ID=my-distrobox\0", b"", ("", "")),  # other tools use this name too
        (b"RUNPOD_POD_ID=a b\x1b[31m\0", b"", ("", "")),
        (b"XRUNPOD_POD_ID=a\0NOTE=RUNPOD_POD_ID=a\0", b"", ("", "")),
        (None, None, ("", "")),
    ],
)
def test_a_provider_is_known_by_its_variables_and_no_other_value_is_given_away(
    tmp_path, monkeypatch, first, own, expected
):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = read_provider(proc(tmp_path, first, own))
    assert found == Provider(*expected) and "secret" not in repr(found)


def test_a_provider_is_known_by_the_files_of_its_images(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".vast_containerlabel").write_text("C.1")
    assert provider.provider_of({}).name == "vast"
    monkeypatch.setenv("HOME", "/home/ubuntu")
    monkeypatch.setattr(provider, "LAMBDA_FILES", (str(tmp_path),))
    assert provider.provider_of({}).name == "lambda"


def test_mounts_are_read_with_their_escapes_and_the_last_one_hides_others(tmp_path):
    text = (
        "overlay / overlay rw 0 0\nshort line\n/dev/sda /a\\040b xfs rw,noexec 0 0\n"
        "/dev/sdb /w ext4 ro 0 0\nmfs#host:9421 /w fuse rw 0 0\n"
    )
    assert read_mounts(proc(tmp_path, b"", mounts=text)) == [
        Mount("overlay", "/", "overlay", ["rw"]),
        Mount("/dev/sda", "/a b", "xfs", ["rw", "noexec"]),
        Mount("mfs#host:9421", "/w", "fuse", ["rw"]),
    ]


def draw_mounts(draw):
    chosen = ["/", *draw.sample(FOLDERS[1:], draw.randrange(len(FOLDERS)))]
    options = [["rw"], ["rw"], ["ro"], ["rw", "noexec"]]
    return [Mount("source", folder, draw.choice(KINDS), draw.choice(options)) for folder in chosen]


@pytest.mark.parametrize("seed", range(200))
def test_a_volume_is_a_disk_of_its_own_that_can_be_used(monkeypatch, seed):
    """Whatever is mounted: what is chosen can be written and executed from, and is neither the container's nor the engine's."""
    draw = random.Random(f"mounts-{seed}")
    mounts, closed = draw_mounts(draw), {folder for folder in FOLDERS if draw.random() < 0.2}
    monkeypatch.setattr(
        provider.os.path, "isdir", lambda path: "." not in path and "nvidia" not in path and path != "/etc/hosts"
    )
    monkeypatch.setattr(provider.os, "access", lambda path, mode: path not in closed)
    usable = {
        mount.folder
        for mount in mounts
        if mount.kind in ("ext4", "xfs", "fuse", "nfs4", "ceph")
        and mount.options == ["rw"]
        and mount.folder not in closed
    } & {"/workspace", "/data", "/mnt/store", "/root"}
    found = find_volume(mounts)
    assert found in (usable or {""})
    assert found == "/workspace" or "/workspace" not in usable


@pytest.mark.parametrize("seed", range(50))
def test_a_path_lies_on_the_deepest_mount_above_it(monkeypatch, seed):
    draw = random.Random(f"paths-{seed}")
    monkeypatch.setattr(provider.os.path, "realpath", lambda path: path)
    mounts = draw_mounts(draw)
    path = draw.choice([*FOLDERS, "/workspaces/x", "/workspace/a/b", "/dat", "/root/.gpurun-box"])
    found = mount_of(path, mounts)
    above = [
        each.folder
        for each in mounts
        if each.folder == "/" or path == each.folder or path.startswith(each.folder + "/")
    ]
    assert found is not None and found.folder == max(above, key=len)


@pytest.mark.parametrize(
    ("kind", "mount", "lost_by"),
    [
        ("runpod", ("overlay", "/"), "stop"),
        ("runpod", ("xfs", "/workspace"), "destroy"),
        ("runpod", ("fuse", "/workspace"), "volume"),
        ("vast", ("overlay", "/"), "destroy"),
        ("vast", ("ext4", "/data"), "volume"),
        ("lambda", ("ext4", "/"), "destroy"),
        ("lambda", ("nfs4", "/lambda/nfs/a"), "volume"),
        ("machine", ("ext4", "/"), "destroy"),
        ("machine", ("tmpfs", "/home"), "stop"),
        ("container", ("overlay", "/"), "unknown"),
    ],
)
def test_what_is_lost_by_what(kind, mount, lost_by):
    assert place.lost_with(kind, Mount("source", mount[1], mount[0], ["rw"])) == lost_by


def test_the_place_of_a_root_on_this_machine(tmp_path):
    found = place.place(str(tmp_path / ".gpurun-box"))
    assert found["folder"] == str(tmp_path) and found["kind"] in ("container", "machine", "runpod", "vast", "lambda")


def test_a_home_folder_keeps_the_root_that_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(provider, "read_provider", lambda: Provider("runpod", "k3x9"))
    monkeypatch.setattr(provider, "find_volume", lambda mounts: "/workspace")
    assert provider.surviving_folder() == "/workspace"
    os.mkdir(tmp_path / provider.ROOT_NAME)
    assert provider.surviving_folder() == "-"


@pytest.mark.parametrize(
    ("name", "volume"), [("runpod", ""), ("vast", "/data"), ("lambda", "/lambda/nfs/a"), ("", "/workspace")]
)
def test_elsewhere_the_home_folder_holds_the_root(tmp_path, monkeypatch, name, volume):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(provider, "read_provider", lambda: Provider(name, ""))
    monkeypatch.setattr(provider, "find_volume", lambda mounts: volume)
    assert provider.surviving_folder() == "-"
