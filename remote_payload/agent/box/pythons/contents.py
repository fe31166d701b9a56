"""Whether an environment still has all the files that were installed into it: without some it may start, and fail later.

The proof is pip's own record: each package's ``*.dist-info/RECORD`` lists its files with their sizes
(https://packaging.python.org/en/latest/specifications/recording-installed-packages/). Which packages there were is written down
when the environment is built, since a package whose record is gone as well would not be missed.
"""

import csv
import os
from typing import Any, Dict, Iterator, List, Optional

from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.box.pythons import interpreters

PACKAGES = "gpurun-packages.json"
MAX_NAMED = 3


def note(environment: str) -> None:
    """Writes into a new environment which packages it has. Raises OSError."""
    sites = {os.path.relpath(site, environment): _packages(site) for site in _sites(environment)}
    write_json(os.path.join(environment, PACKAGES), {"packages": sites})


def problem(environment: str) -> Optional[str]:
    """Why an environment that gpurun built cannot be relied on, in a few words; None for one that is whole.

    Its interpreter is started. Files that a program made (``__pycache__``) are not looked at. One without a list of its packages is not
    shown to be whole: it lost the list, or an older agent built it.
    """
    try:
        interpreters.ask(os.path.join(environment, "bin", "python"))
    except (OSError, ValueError, KeyError) as error:
        return "its Python does not start (%s)" % (
            (error.strerror or str(error)) if isinstance(error, OSError) else error
        )
    noted = (read_json(os.path.join(environment, PACKAGES)) or {}).get("packages")
    if not isinstance(noted, dict):
        return "the list of its packages is gone, or an older gpurun built it"
    lost = sorted(_lost(environment, noted))
    if not lost:
        return None
    more = ", …" if len(lost) > MAX_NAMED else ""
    return "it lacks %d file%s (%s%s)" % (len(lost), "s" * (len(lost) > 1), ", ".join(lost[:MAX_NAMED]), more)


def _lost(environment: str, sites: Dict[str, Any]) -> Iterator[str]:
    for site in dict.fromkeys([*(os.path.join(environment, each) for each in sites), *_sites(environment)]):
        had = sites.get(os.path.relpath(site, environment))
        there = _packages(site)
        for package in dict.fromkeys([*(had if isinstance(had, list) else []), *there]):
            if package not in there:
                yield str(package)
            else:
                yield from _lost_of(site, package)


def _lost_of(site: str, package: str) -> Iterator[str]:
    """The files of one package that are gone or have another size. Files outside of ``site`` (programs) are not looked at: moving the
    environment to its final name rewrites them.
    """
    record = os.path.join(site, package, "RECORD")
    try:
        with open(record, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) == 3]
    except (OSError, ValueError, csv.Error):
        yield package + "/RECORD"
        return
    for path, _, size in rows:
        if path.startswith(("..", "/")) or "__pycache__" in path:
            continue
        try:
            found = os.stat(os.path.join(site, path)).st_size
        except OSError:
            yield path
            continue
        if size.isdigit() and found != int(size):
            yield path


def _sites(environment: str) -> List[str]:
    lib = os.path.join(environment, "lib")
    names = sorted(os.listdir(lib)) if os.path.isdir(lib) else []
    sites = [os.path.join(lib, name, "site-packages") for name in names if name.startswith("python")]
    return [site for site in sites if os.path.isdir(site)]


def _packages(site: str) -> List[str]:
    names = sorted(os.listdir(site)) if os.path.isdir(site) else []
    return [name for name in names if name.endswith(".dist-info")]
