"""`textvae report` as a function of a TextVAE."""

from pathlib import Path
from typing import NamedTuple

from textvae.api.text_vae import TextVAE
from textvae.errors import CheckpointError
from textvae.report.corpus import DataChoice
from textvae.report.material import Material, gather
from textvae.report.page import render
from textvae.report.plots import check_plots, write_plots
from textvae.storage.files import write_file


class Written(NamedTuple):
    """A report."""

    material: Material
    """What the page shows."""
    plots: list[Path]
    """The files of the plots, if any were asked for."""


def write_report(
    vae: TextVAE,
    output: str | Path,
    choice: DataChoice = DataChoice(),  # noqa: B008 -- an immutable tuple
    *,
    seed: int = 0,
    num_sentences: int = 1000,
    num_samples: int = 100,
    plots: str | Path | None = None,
    overwrite: bool = False,
) -> Written:
    """Write one HTML page about a model that needs nothing but a browser.

    The same model, data and seed give the same bytes.

    Args:
        vae: the model.
        output: the page.
        choice: the sentences it is about; none is the test set the run was made with.
        seed: of all that is drawn.
        num_sentences: at most so many sentences are looked at.
        num_samples: K of the importance-weighted bound, where figures have to be measured.
        plots: a directory for the plots as PNG and CSV, which needs matplotlib.
        overwrite: replace what is there.

    Raises:
        CheckpointError, StorageError: the output exists, or cannot be written.
        ConfigError: a number out of bounds, or plots without matplotlib.
        DataError: sentences that cannot be read, or no test set.
    """
    check_output(Path(output), overwrite=overwrite)
    if plots is not None:
        check_plots(Path(plots), overwrite=overwrite)
    material = gather(vae, choice, seed=seed, num_sentences=num_sentences, num_samples=num_samples)
    drawn = [] if plots is None else write_plots(material, Path(plots))
    write_file(Path(output), render(material).encode())
    return Written(material, drawn)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that is taken or cannot be written, before any work is done.

    Raises:
        CheckpointError: it is.
    """
    if path.is_dir():
        raise CheckpointError(f"--output {path}: is a directory; name a file in it")
    if not path.parent.is_dir():
        raise CheckpointError(f"--output {path}: there is no directory {path.parent}")
    if path.exists() and not overwrite:
        raise CheckpointError(
            f"--output {path}: is there already; name another file, or add --overwrite"
        )
