"""What the source of a program shows without being run: what it imports, and the paths in it, by the names that they are given there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

# Names of options, variables and parameters: --out_dir, output_dir=, save_path, dirpath.
_PLACE = r"(?:_?(?:dir|directory|folder|path|root|file))"
WRITTEN = re.compile(
    rf"(?:\w+_)?(?:out|output|outputs|save|results?|checkpoints?|ckpts?|logs?|logging|tensorboard|work){_PLACE}"
    r"|out|outputs?|dirpath|default_root_dir|save_directory"
)
READ = re.compile(
    rf"(?:\w+_)?(?:data|dataset|train|training|valid|val|eval|test|corpus|inputs?)(?:_data|_set)?{_PLACE}s?"
)
# Calls that write to the path that they are given, by the place of that argument.
_WRITES = {"save": 1, "save_pretrained": 0, "save_model": 0, "makedirs": 0, "save_file": 1, "savez": 0}
# Where frameworks write that are told no folder.
_FRAMEWORKS = {"lightning": "lightning_logs", "pytorch_lightning": "lightning_logs", "hydra": "outputs"}


@dataclass(frozen=True)
class Source:
    """The modules that are imported, by their first names; paths that are written to and read from, in the order of the text."""

    imports: frozenset[str]
    written: tuple[str, ...]
    read: tuple[str, ...]


def read_source(text: str) -> Source:
    """Of one file; of none where it is no Python."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Source(frozenset(), (), ())
    imports = frozenset(_imports(nodes))
    named = [(name, value) for node in nodes for name, value in _named(node)]
    written = [value for name, value in named if WRITTEN.fullmatch(name)]
    written += [value for node in nodes if isinstance(node, ast.Call) for value in _written_by(node)]
    written = written or [folder for module, folder in _FRAMEWORKS.items() if module in imports]
    read = [value for name, value in named if READ.fullmatch(name)]
    return Source(imports, tuple(dict.fromkeys(map(_folder_of, written))), tuple(dict.fromkeys(read)))


def _imports(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _named(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Texts with the names that they are given: ``out_dir = "out"``, ``f(out_dir="out")``, ``def f(out_dir="out")``, and the default of an
    option, ``add_argument("--out-dir", default="out")``.
    """
    if isinstance(node, ast.Assign):
        yield from _pairs([target.id for target in node.targets if isinstance(target, ast.Name)], node.value)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield from _pairs([node.target.id], _default(node.value) or node.value)
    elif isinstance(node, ast.Call):
        default = _default(node)
        options = [text.lstrip("-").replace("-", "_") for each in node.args if (text := _text(each)).startswith("-")]
        if default is not None:
            yield from _pairs(options, default)
        for keyword in node.keywords:
            yield from _pairs([keyword.arg or ""], keyword.value)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        parameters = [*node.args.posonlyargs, *node.args.args]
        for parameter, value in zip(reversed(parameters), reversed(node.args.defaults), strict=False):
            yield from _pairs([parameter.arg], value)
        for parameter, given in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if given is not None:
                yield from _pairs([parameter.arg], given)


def _pairs(names: list[str], value: ast.AST) -> Iterator[tuple[str, str]]:
    text = _text(value)
    if isinstance(value, ast.Call) and value.args and not text:  # Path("out")
        text = _text(value.args[0]) if _called(value) in ("Path", "PurePath") else ""
    return ((name.lower(), text) for name in names if text)


def _default(node: ast.AST) -> ast.AST | None:
    """``default=`` of ``add_argument``, ``click.option``, ``field``."""
    keywords = node.keywords if isinstance(node, ast.Call) else []
    return next((keyword.value for keyword in keywords if keyword.arg == "default"), None)


def _written_by(call: ast.Call) -> Iterator[str]:
    name = _called(call)
    place = _WRITES.get(name)
    if place is not None and len(call.args) > place:
        yield _text(call.args[place])
    if name == "open" and len(call.args) > 1 and re.search("[wax]", _text(call.args[1])):
        yield _text(call.args[0])


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _folder_of(path: str) -> str:
    """The folder of a file that lies in one: ``out`` for ``out/model.pt``."""
    pure = PurePosixPath(path)
    return str(pure.parent) if pure.suffix and str(pure.parent) not in (".", "/") else path
