"""``gpurun export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.local_model.llama_cpp.convert import TOLERANCE

if TYPE_CHECKING:
    from runner.workflow.exporting.export import Export


@click.command(
    "export",
    epilog="\b\nExamples:\n"
    "  gpurun export --merged                     the latest run's model\n"
    "  gpurun export legal --merged --dtype bfloat16\n"
    "  gpurun export brie --gguf Q4_K_M --ollama\n"
    "  gpurun export adapters/mine --merged --into mine-whole\n"
    "  gpurun export legal:step-000100 --plain    a checkpoint as models/best is",
)
@click.argument("target", required=False, metavar="[TARGET]", shell_complete=options.complete_target)
@click.option("--merged", is_flag=True, help="The whole model as safetensors, an adapter merged into its base.")
@click.option(
    "--gguf",
    type=click.Choice(list(TOLERANCE), case_sensitive=False),
    multiple=True,
    help="A GGUF file of this quantisation, by llama.cpp. May be repeated.",
)
@click.option("--ollama", is_flag=True, help="A Modelfile for Ollama, for the GGUF file, or else for the whole model.")
@click.option(
    "--plain", is_flag=True, help="Of a checkpoint: the finished model that it would be, for peft and transformers."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="The dtype of the weights. Without it they keep their own.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder for what is written. Without it NAME-export, here.",
)
@options.json_option
def command(
    target: str | None,
    merged: bool,
    gguf: tuple[str, ...],
    ollama: bool,
    plain: bool,
    dtype: str | None,
    into: Path | None,
    as_json: bool,
) -> None:
    """Write a fetched model in a form that other tools load.

    TARGET is a fetched run (without one the newest), a checkpoint of it (RUN:step-000100), or the folder of a model.

    What is written is loaded again by the tool that it is for, and its predictions are compared with the box's. It gets its name when they
    agree; if not, nothing of it stays and the command exits with 6. A folder without predictions of a box, such as a checkpoint, or an
    adapter that gpurun did not train, is compared with what it predicts here before.
    """
    from runner.workflow.exporting.export import Wanted, default_folder, export
    from runner.workflow.inference.targets import trained_target

    if not merged and not gguf and (ollama or not plain):
        raise click.UsageError("say what to export: --merged, --gguf QUANT, one of them with --ollama, or --plain")
    model = trained_target(target)
    wanted = Wanted(into or default_folder(model), merged, tuple(dict.fromkeys(gguf)), ollama, dtype, plain)
    run = model.run
    exports = export(model.folder, run, wanted, output.reporter(as_json))
    if as_json:
        from runner.cli.as_document.models import export_document

        return output.print_document(export_document(run, exports))
    for each in exports:
        show(each)


def show(export: Export) -> None:
    """Prints what was written and how close it is, for a person."""
    from runner.domain.quantities import format_size, pluralise

    merged = f", {pluralise(export.merged_layers, 'layer')} merged" if export.merged_layers else ""
    what = "log-probability" if export.form == "gguf" else "logit"
    found, whose = export.comparison, "on the box" if export.by_box else "before, here"
    tested = [
        f"{format_size(export.size)}, {export.weights}{merged}",
        f"largest difference of a {what} {found.difference:.2g} (row {found.worst_row}), {found.limit:.2g} allowed",
        f"{found.agree} of {found.answers} answers as {whose}",
        "passed",
    ]
    modelfile = [f"for the {export.weights} weights that were tested; Ollama itself was not started"]
    for line in (f"{export.path}", *(modelfile if export.form == "ollama" else tested)):
        output.print_untrusted(line)
