import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from remote_payload.agent.box.pythons import builders, interpreters
from remote_payload.agent.verbs.box import provision as verb
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request

SIX = "six==1.17.0\n"


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """One download for all tests of this file."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def box(tmp_path, monkeypatch, caches):
    """A box whose one interpreter is an empty virtual environment; the test's own packages are out of sight."""
    monkeypatch.setenv("UV_CACHE_DIR", str(caches / "uv"))
    monkeypatch.setenv("PIP_CACHE_DIR", str(caches / "pip"))
    uv = Path(sys.prefix, "bin", "uv")
    (tmp_path / "bin").mkdir()
    os.symlink(uv, tmp_path / "bin" / "uv")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    base = tmp_path / "base"
    subprocess.run([uv, "venv", "-q", "--seed", "--python", sys.executable, base], check=True, timeout=60)
    monkeypatch.setattr(interpreters, "_candidates", lambda named: [*named, str(base / "bin" / "python")])
    paths = BoxPaths(str(tmp_path / "root"))
    os.makedirs(paths.root)
    paths.base = base
    return paths


@pytest.fixture
def without_uv(monkeypatch):
    monkeypatch.setattr(builders, "find_uv", lambda folder: None)
    monkeypatch.setattr(builders, "install_uv", lambda folder, there, run: None)


def provision(box, request=None, **args):
    args = {"key": "key-1", "python": None, "requirements": SIX, "ranges": ["six>=1.16"], **args}
    request = request or Request(args, box)
    request.args = args
    lines = []
    request.progress = lambda value: lines.append(value["line"])
    answer = verb.provision(request)
    answer["lines"] = lines
    return answer


def python(interpreter, source):
    done = subprocess.run([interpreter, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def leftovers(box):
    envs = Path(box.root, "envs")
    return [path.name for path in envs.iterdir() if "partial" in path.name] if envs.exists() else []


def stand_in_torch(site, version="2.13.0"):
    """A distribution of that name with nothing in it: the real one is 200 MB."""
    info = site / f"torch-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    (info / "RECORD").write_text("")
    (info / "entry_points.txt").write_text("[console_scripts]\ntorchrun = torch.run:main\n")
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text(f"__version__ = '{version}'\n")
    (site / "torch" / "run.py").write_text("import sys\ndef main(): print('running under', sys.prefix)\n")


def site_of(base):
    return next(Path(base, "lib").glob("python3*/site-packages"))


def test_a_new_environment_is_built_with_uv_then_reused_in_no_time(box):
    built = provision(box)
    assert (built["how"], built["installer"]) == ("built", "uv")
    assert built["interpreter"] == box.env("key-1") + "/bin/python"
    assert python(built["interpreter"], "import six, sys; print(six.__version__, sys.prefix)") == (
        "1.17.0 " + box.env("key-1")
    )
    assert any("six==1.17.0" in line for line in built["lines"])
    reused = provision(box)
    assert reused["how"] == "reused" and reused["interpreter"] == built["interpreter"] and reused["lines"] == []
    assert leftovers(box) == []


def test_without_uv_pip_builds_it_and_console_scripts_start_under_the_final_name(box, without_uv):
    built = provision(box, requirements="six==1.17.0\ncharset-normalizer==3.4.2\n", ranges=[])
    assert (built["how"], built["installer"]) == ("built", "pip")
    script = Path(box.env("key-1"), "bin", "normalizer")
    assert script.read_text().startswith("#!" + box.env("key-1"))
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert "3.4.2" in done.stdout, done.stderr
    activated = f'. {box.env("key-1")}/bin/activate && command -v python && echo "$VIRTUAL_ENV"'
    told = subprocess.run(["bash", "-c", activated], capture_output=True, text=True, timeout=60).stdout.split()
    assert told == [box.env("key-1") + "/bin/python", box.env("key-1")]
    assert "partial" not in Path(box.env("key-1"), "pyvenv.cfg").read_text()


def test_an_interpreter_that_has_everything_is_used_as_it_is(box):
    uv = shutil.which("uv")
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", box.base / "bin" / "python", "six==1.17.0"], check=True, timeout=60
    )
    answer = provision(box)
    assert (answer["how"], answer["interpreter"]) == ("found", str(box.base / "bin" / "python"))
    assert not os.path.exists(box.env("key-1"))


def test_the_interpreter_that_the_job_names_is_used_and_what_it_lacks_is_told(box):
    answer = provision(box, interpreter=str(box.base / "bin" / "python"), ranges=["six>=1.16", "pip"])
    assert (answer["how"], answer["missing"]) == ("given", ["six>=1.16"])


@pytest.mark.stand_in
def test_the_torch_of_a_named_interpreter_is_asked_where_there_is_a_driver(box, monkeypatch, tmp_path):
    site = next((box.base / "lib").glob("python*/site-packages"))
    (site / "torch-2.13.0.dist-info").mkdir()
    (site / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.13.0\n")
    (site / "torch").mkdir()
    (site / "torch" / "version.py").write_text("__version__ = '2.13.0'\ncuda = '12.8'\n")
    says = "class cuda:\n is_available = staticmethod(lambda: {})\n device_count = staticmethod(lambda: 1)\n"
    broken = " @staticmethod\n def init(): raise RuntimeError('error 802')\n"
    driver = tmp_path / "driver"
    monkeypatch.setenv(interpreters.STAND_IN, str(driver))

    def asked(gpus=1):
        return provision(box, interpreter=str(box.base / "bin" / "python"), ranges=["torch>=2.6"], gpus=gpus)["torch"]

    (site / "torch" / "__init__.py").write_text(says.format(False) + broken)
    assert asked() is None  # no driver
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Wed\n")
    assert asked() == "error 802" and asked("all") == "error 802" and asked(0) is None
    (site / "torch" / "__init__.py").write_text(says.format(True))
    assert asked() is None
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.35.03  Wed\n")
    assert asked() == "torch 2.13.0 is built for CUDA 12.8, the driver 470.35.03 runs CUDA 11"


@pytest.mark.parametrize(("path", "why"), [("/nonexistent/python", "No such file"), ("/bin/false", "status 1")])
def test_a_named_interpreter_that_does_not_run_is_a_named_error(box, path, why):
    with pytest.raises(AgentError, match=why) as failure:
        provision(box, interpreter=path)
    assert failure.value.kind == "EnvironmentFailed" and "environment.interpreter" in failure.value.hint


@pytest.mark.stand_in
def test_an_interpreter_with_torch_gets_a_layer_with_only_what_it_lacks(box):
    stand_in_torch(site_of(box.base))
    locked = "torch==2.14.0\nsix==1.16.0 ; python_version >= '3.8'\nsix==1.0 ; python_version < '3'\nx[y]>=3\n"
    answer = provision(box, requirements=locked, ranges=["torch>=2.6", "six>=1.16"])
    assert (answer["how"], answer["installer"]) == ("overlaid", "pip")
    source = "import six, torch; print(six.__version__, torch.__version__); print(six.__file__); print(torch.__file__)"
    versions, six, torch = python(answer["interpreter"], source).splitlines()
    assert versions == "1.16.0 2.13.0"
    assert six.startswith(box.env("key-1")) and torch.startswith(str(box.base))
    ran = subprocess.run([Path(box.env("key-1"), "bin", "torchrun")], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "running under " + box.env("key-1"), ran.stderr
    assert provision(box, ranges=["torch>=2.6", "six>=1.16"])["how"] == "reused"


def wheel(folder, name, version, requires=""):
    """A wheel with nothing but metadata in it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


@pytest.mark.stand_in
def test_a_layer_never_brings_a_torch_of_its_own_a_new_environment_is_built_instead(box, tmp_path, monkeypatch):
    stand_in_torch(site_of(box.base))
    (tmp_path / "wheels").mkdir()
    wheel(tmp_path / "wheels", "torch", "2.14.0")
    wheel(tmp_path / "wheels", "gpurun_needs_torch", "1.0", "Requires-Dist: torch>=2.14\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    locked = "torch==2.14.0\ngpurun-needs-torch==1.0\n"
    answer = provision(box, requirements=locked, ranges=["torch>=2.6", "gpurun-needs-torch"])
    assert (answer["how"], answer["installer"]) == ("built", "uv")
    assert any("building a new environment instead" in line for line in answer["lines"])
    assert leftovers(box) == []


@pytest.mark.stand_in
def test_an_interpreter_whose_torch_is_out_of_range_is_not_built_upon(box):
    stand_in_torch(site_of(box.base), "1.13.1")
    with pytest.raises(AgentError, match=r"lack packages that are needed: torch>=2\.6"):
        provision(box, ranges=["torch>=2.6", "six>=1.16"])
    assert leftovers(box) == [] and not os.path.exists(box.env("key-1"))


def test_requirements_that_cannot_be_met_show_the_installers_words_and_leave_nothing(box):
    with pytest.raises(AgentError, match=r"six==99\.0") as failure:
        provision(box, requirements="six==99.0\n")
    assert failure.value.kind == "EnvironmentFailed"
    assert "environment.requirements" in failure.value.hint
    assert leftovers(box) == [] and not os.path.exists(box.env("key-1"))


def test_requirements_with_markers_are_left_to_the_installer(box):
    answer = provision(box, requirements='six==1.17.0; python_version >= "3"\n', ranges=None)
    assert (answer["how"], answer["missing"]) == ("built", [])


def test_a_job_without_requirements_takes_the_first_python_there_is(box):
    assert provision(box, requirements="", ranges=None)["how"] == "found"


def test_a_python_that_cannot_be_downloaded_is_no_matter_of_the_package_index(box, monkeypatch):
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    with pytest.raises(AgentError, match=r"cannot download Python 3\.99; the box has 3\.") as failure:
        provision(box, requirements="", ranges=None, python="3.99")
    assert 'python: "3.' in failure.value.hint and "index" not in failure.value.hint


def test_a_python_that_nobody_has_and_no_uv_names_both(box, without_uv):
    with pytest.raises(AgentError, match=r"Python 3\.5 is not on the box, and uv") as failure:
        provision(box, python="3.5")
    assert "environment.python" in failure.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_named_and_nothing_is_left(box, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", box.root], check=True)
    try:
        with pytest.raises(AgentError, match="No space left") as failure:
            provision(box)
        assert "disk of the box is full" in failure.value.hint
        assert leftovers(box) == []
    finally:
        subprocess.run(["umount", box.root], check=True)


AGENT = """
import sys
from remote_payload.agent.box.pythons import builders, interpreters
from remote_payload.agent.verbs.box import provision
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request
interpreters._candidates = lambda named: [sys.argv[2]]
builders.find_uv = lambda folder: sys.argv[3]
args = {"key": "key-1", "requirements": "six==1.17.0", "ranges": ["six"]}
print(provision.provision(Request(args, BoxPaths(sys.argv[1])))["how"], flush=True)
"""


def agent(box, uv):
    command = [sys.executable, "-c", AGENT, box.root, str(box.base / "bin" / "python"), str(uv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4])


def test_a_build_killed_half_way_leaves_nothing_under_the_final_name_and_the_next_one_works(box, tmp_path):
    os.mkfifo(tmp_path / "reached")
    slow = tmp_path / "slow-uv"
    slow.write_text(f'#!/bin/sh\n{shutil.which("uv")} "$@" || exit\necho $$ > {tmp_path}/reached\nexec sleep 60\n')
    slow.chmod(0o755)
    killed = agent(box, slow)
    builder = int((tmp_path / "reached").read_text())  # the environment stands half-built
    killed.kill()
    killed.communicate(timeout=20)
    assert not os.path.exists(box.env("key-1")) and len(leftovers(box)) == 1

    # Its orphan still holds the lock, so that a second submit waits for it instead of building beside it.
    waiting = threading.Event()
    request = Request({}, box)
    answers = []

    def second():
        answers.append(provision_and_tell(box, request, waiting))

    thread = threading.Thread(target=second)
    thread.start()
    assert waiting.wait(20)
    os.kill(builder, signal.SIGKILL)
    thread.join(30)
    assert answers == ["built"] and leftovers(box) == []
    assert python(box.env("key-1") + "/bin/python", "import six; print(six.__version__)") == "1.17.0"


def provision_and_tell(box, request, waiting):
    request.args = {"key": "key-1", "python": None, "requirements": SIX, "ranges": ["six>=1.16"]}
    request.progress = lambda value: waiting.set() if "waiting" in value["line"] else None
    return verb.provision(request)["how"]


def test_two_submits_at_once_build_once(box):
    agents = [agent(box, shutil.which("uv")) for _ in range(3)]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in agents)
    assert said == ["built", "reused", "reused"]


def test_an_environment_whose_python_went_with_the_old_container_is_built_again(box):
    provision(box)
    python_link = Path(box.env("key-1"), "bin", "python")
    python_link.unlink()
    os.symlink("/gone/with/the/container/python3", python_link)
    assert provision(box)["how"] == "built"
    assert python(str(python_link), "import six; print(six.__version__)") == "1.17.0"


def test_a_cancelled_build_ends_its_commands_and_leaves_nothing(box, monkeypatch, tmp_path):
    slow = tmp_path / "slow-uv"
    slow.write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(builders, "find_uv", lambda folder: str(slow))
    request = Request({"key": "key-1", "requirements": SIX, "ranges": []}, box)
    pids = []

    def cancel(value):
        pids.append(int(value["line"]))
        request.cancelled.set()

    request.progress = cancel
    with pytest.raises(AgentError, match="cancelled"):
        verb.provision(request)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert leftovers(box) == []


def test_uv_is_installed_with_pip_where_there_is_none(box, monkeypatch):
    monkeypatch.setattr(builders.shutil, "which", lambda name: None)
    monkeypatch.setattr(builders, "UV_PLACES", ())
    answer = provision(box)
    assert answer["installer"] == "uv"
    assert os.listdir(os.path.join(box.root, "tools")) == ["uv"]


def test_pips_mirrors_hold_for_uv_too_and_uvs_own_settings_win(monkeypatch):
    pip = {
        "index-url": "https://m/simple",
        "extra-index-url": "\nhttps://a\nhttps://b",
        "find-links": "/w",
        "cert": "/c",
    }
    assert builders.uv_settings(pip) == {
        "UV_DEFAULT_INDEX": "https://m/simple",
        "UV_INDEX": "https://a https://b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/w",
        "SSL_CERT_FILE": "/c",
    }
    monkeypatch.setattr(builders, "pip_settings", lambda there: pip)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine")
    values = builders.variables("/root", [], cuda=12)
    assert values["UV_DEFAULT_INDEX"] == "https://mine" and values["UV_TORCH_BACKEND"] == "auto"
    assert "UV_TORCH_BACKEND" not in builders.variables("/root", [], cuda=13)


def test_pips_settings_are_read_from_its_files_and_environment(box, monkeypatch, tmp_path):
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://m/simple\nfind-links = /w\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/e")
    settings = builders.pip_settings(interpreters.find())
    assert (settings["index-url"], settings["find-links"]) == ("https://m/simple", "/e")


def test_pins_of_cuda_go_where_another_cuda_is_installed():
    locked = "nvidia-cublas==13.1 ; sys_platform == 'linux'\ncuda-bindings==13.5\ntriton==3.5\ntritonclient==1\ntorch==2.13.0\n"
    assert builders.without_cuda(locked) == "tritonclient==1\ntorch==2.13.0\n"


@pytest.mark.parametrize(
    "bad",
    [{"key": "../x"}, {"key": 3}, {"python": "2.7"}, {"python": "3; x"}, {"interpreters": "x"}],
)
def test_arguments_that_make_no_sense_are_refused(box, bad):
    with pytest.raises(AgentError) as failure:
        provision(box, **bad)
    assert failure.value.kind == "EnvironmentFailed"
