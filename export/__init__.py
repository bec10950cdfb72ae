"""PyTorch model to compiled artifact. Needs the extra ``export``."""

from collections.abc import Callable
from pathlib import Path


def export(
    model: str,
    output: Path | str,
    target: str = "cpu",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    **options,
):
    """Compile ``model`` (a preset or a checkpoint folder) for ``target`` into an artifact at ``output``.

    ``options`` are the other fields of `ExportOptions`; ``progress`` is told (what is done, how much, of how much).
    Returns the opened `Artifact`. Raises `PredecodeError` with one line for anything a user can mend.
    """
    # Imported here: parts of this package (weights, presets) are useful where no compiler is installed.
    from predecode.export.exporter import export_artifact
    from predecode.export.options import ExportOptions

    return export_artifact(ExportOptions(model=model, target=target, **options), Path(output), progress)


__all__ = ["export"]
