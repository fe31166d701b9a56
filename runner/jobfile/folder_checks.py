"""A job file checked against its folder: code, data, requirements and local models must exist inside it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from remote_payload.agent.wire.paths import RUN_ID
from remote_payload.settings import is_own
from runner.domain.job import RECIPE_OUTPUTS, RunOutput, run_output
from runner.jobfile.problems import Place, Problem, quoted, suggestion
from runner.jobfile.tree import Node


class FolderChecks:
    """The checks of one file against one folder. They read the tree, not the Job, so that they run although other checks failed."""

    def __init__(self, tree: Node, path: str, folder: Path) -> None:
        self.tree = tree
        self.path = path
        self.folder = folder
        self.problems: list[Problem] = []

    def folder_is_there(self) -> bool:
        """Whether the folder exists; reports a problem otherwise."""
        if self.folder.is_dir():
            return True
        node = self.tree.get("code", "path")
        self.problem(node.place if node else Place(), f"code.path: there is no folder {quoted(str(self.folder), 300)}")
        return False

    def run(self) -> None:
        """The checks of code, data and outputs."""
        self._code()
        self._data()
        self._outputs()

    def inside(self, written: str, place: Place, name: str, file: str = "") -> Path | None:
        """The path below the folder that ``written`` names, or None after reporting at ``place`` (of ``file``) why there is none."""
        refusal = self._refusal(written)
        if refusal is None:
            return self.folder / written
        self.problem(place, f"{name}{refusal}", file)
        return None

    def _refusal(self, written: str) -> str | None:
        path = PurePosixPath(written)
        if not written or elsewhere(written):
            return f" must be a path inside the code folder, not {quoted(written)}"
        found = self.folder / path
        try:
            real, root = found.resolve(), self.folder.resolve()
            exists = found.exists()
        except (OSError, RuntimeError, ValueError) as error:
            return f": {quoted(written)} cannot be looked at ({type(error).__name__})"
        if not exists:
            return f": there is no {quoted(written)} in {quoted(str(self.folder), 300)}{self._nearest(path)}"
        if not real.is_relative_to(root):
            return f": {quoted(written)} is a link that leaves the code folder, to {quoted(str(real), 300)}"
        return None

    def problem(self, place: Place, message: str, file: str = "") -> None:
        """Adds a problem at a place of the job file, or of another ``file`` that it names."""
        self.problems.append(Problem(file or self.path, place, message))

    def _nearest(self, path: PurePosixPath) -> str:
        parent = self.folder / path.parent
        try:
            names = [str(path.parent / name) for name in os.listdir(parent)]
        except OSError:
            return ""
        return suggestion(str(path), [name for name in names if name.isprintable()])

    def _code(self) -> None:
        """Included files are there. A command job sends its folder: a home folder or the whole disk is refused."""
        for index, node in enumerate(texts(self.tree.get("code", "include"))):
            name = f"code.include[{index}]"
            found = self.inside(node.text, node.place, name)
            if found is not None and not found.is_file():
                self.problem(node.place, f"{name}: {quoted(node.text)} is not a file; name a whole folder under data:")
        real = self.folder.resolve()
        if self._sends_code() and real in (Path.home().resolve(), Path(real.anchor)):
            written = self.tree.get("code", "path")
            place = (
                written.place
                if written
                else self.tree.key_place("command" if self.tree.get("command") is not None else "recipe")
            )
            self.problem(place, f"code.path is {quoted(str(real), 300)}: put the code into a folder of its own")

    def _sends_code(self) -> bool:
        recipe = self.tree.get("recipe")
        return self.tree.get("command") is not None or (recipe is not None and is_own(recipe.text))

    def _data(self) -> None:
        seen: dict[PurePosixPath, str] = {}
        items = self.tree.get("data")
        for index, node in enumerate(items.items if items else []):
            name, path = f"data[{index}]", PurePosixPath(node.text or "")
            if node.kind != "scalar" or node.value is None:
                self._data_from(node, name, seen)
                continue
            if output := run_output(node.text):
                if self.names_run_output(output, node, name):
                    self._apart(PurePosixPath(PurePosixPath(output.path).name), node, name, seen)
                continue
            if elsewhere(node.text):
                example = f"{{path: {node.text}, as: data/{path.name or 'corpus'}}}"
                self.problem(node.place, f"{name}: {quoted(node.text)} is not in the code folder: write {example}")
                continue
            found = self.inside(node.text, node.place, name)
            if found is None:
                continue
            if found.is_symlink() and found.is_file():
                self.problem(node.place, f"{name}: {quoted(node.text)} is a link: name the file itself")
            if path == PurePosixPath("."):
                self.problem(node.place, f"{name} must be a part of the code folder, not all of it")
            self._apart(path, node, name, seen)

    def _data_from(self, entry: Node, name: str, seen: dict[PurePosixPath, str]) -> None:
        """Checks ``{path: …, as: …}``: the path exists, and no other file or data has the name."""
        path, named = entry.get("path"), entry.get("as")
        output = run_output(path.text) if path is not None and path.text else None
        if path is not None and output:
            self.names_run_output(output, path, f"{name}.path")
        elif path is not None and path.text and not os.path.lexists(self.folder / Path(path.text).expanduser()):
            self.problem(path.place, f"{name}.path: there is no {quoted(path.text, 300)}")
        if named is not None and named.text:
            self._apart(PurePosixPath(named.text), named, f"{name}.as", seen)
            if path is not None and not output and self._hides(path.text or "", named.text):
                self.problem(
                    named.place, f"{name}.as: {quoted(named.text)} is in the code folder already: give another name"
                )

    def names_run_output(self, output: RunOutput, node: Node, name: str) -> bool:
        """Checks the form of ``run:ID/path``; whether there is such a run and such an output is asked when the job is submitted."""
        if not RUN_ID.fullmatch(output.run_id):
            example = "run:legal-20260102-142030-7f3a/models/best"
            self.problem(
                node.place,
                f"{name}: {quoted(node.text)} needs the whole id of a run, as in {example}: gpurun list shows it",
            )
            return False
        if not output.path or ".." in output.path.split("/"):
            self.problem(node.place, f"{name}: write what the run wrote, such as run:{output.run_id}/models/best")
            return False
        return True

    def _hides(self, path: str, named: str) -> bool:
        """Whether data under this name would hide another file or folder of the code folder."""
        own, data = self.folder / named, self.folder / Path(path).expanduser()
        return os.path.lexists(own) and not (data.exists() and own.exists() and own.samefile(data))

    def _apart(self, path: PurePosixPath, node: Node, name: str, seen: dict[PurePosixPath, str]) -> None:
        """Reports two entries of ``data`` at one place: the program would find only one of them."""
        for other in seen:
            if path == other or other in path.parents or path in other.parents:
                self.problem(node.place, f"{name}: {quoted(node.text)} is already sent with {quoted(seen[other])}")
                break
        seen[path] = node.text

    def _outputs(self) -> None:
        data = {PurePosixPath(node.text).parts[:1] for node in texts(self.tree.get("data"))}
        seen: list[PurePosixPath] = []
        for index, node in enumerate(texts(self.tree.get("outputs"))):
            path, name = PurePosixPath(node.text), f"outputs[{index}]"
            if self.tree.get("recipe") is not None and path.parts[:1] and path.parts[0] not in RECIPE_OUTPUTS:
                advice = suggestion(path.parts[0], RECIPE_OUTPUTS) or ": there are " + ", ".join(RECIPE_OUTPUTS)
                self.problem(node.place, f"{name}: a recipe writes no {quoted(node.text)}{advice}")
            if path.parts[:1] in data:
                self.problem(node.place, f"{name}: {quoted(node.text)} is data: what a run writes needs another name")
            around = next(
                (other for other in seen if other == path or other in path.parents or path in other.parents), None
            )
            if around is not None:
                self.problem(node.place, f"{name}: {quoted(node.text)} comes home with {quoted(str(around))} already")
            seen.append(path)


def texts(node: Node | None) -> list[Node]:
    """The scalar items of a list; empty for any other node (check_fields reports it)."""
    return [item for item in node.items if item.kind == "scalar" and item.value is not None] if node else []


def elsewhere(written: str) -> bool:
    """Whether a path is written as one outside the code folder."""
    path = PurePosixPath(written)
    return path.is_absolute() or ".." in path.parts or written.startswith("~")
