"""`textvae report` as a function of a TextVAE."""

from pathlib import Path
from typing import NamedTuple

from textvae.api.text_vae import TextVAE
from textvae.errors import CheckpointError
from textvae.report.corpus import DataChoice
from textvae.report.csv_tables import check_folder, write_csv
from textvae.report.material import Material, gather
from textvae.report.page import render
from textvae.storage.files import write_file


class Report(NamedTuple):
    """A report that was written."""

    material: Material
    """The data of the page."""
    csv_files: list[Path]
    """Empty without `csv_folder`."""


def write_report(
    vae: TextVAE,
    output: str | Path,
    choice: DataChoice = DataChoice(),  # noqa: B008 -- an immutable tuple
    *,
    seed: int = 0,
    num_sentences: int = 1000,
    num_samples: int = 100,
    csv_folder: str | Path | None = None,
    overwrite: bool = False,
) -> Report:
    """Write one HTML page about a model that needs nothing but a browser.

    The same model, data and seed give the same bytes.

    Args:
        vae: the model.
        output: the HTML file.
        choice: the sentences; none is the test set of the run.
        seed: of every draw.
        num_sentences: a random subset of this size where there are more.
        num_samples: K of the importance-weighted bound, where figures have to be measured.
        csv_folder: a directory for the numbers behind the charts.
        overwrite: replace what is there.

    Raises:
        CheckpointError, StorageError: the output exists, or cannot be written.
        ConfigError: a number out of bounds.
        DataError: sentences that cannot be read, or no test set.
    """
    check_output(Path(output), overwrite=overwrite)
    if csv_folder is not None:
        check_folder(Path(csv_folder), overwrite=overwrite)
    material = gather(vae, choice, seed=seed, num_sentences=num_sentences, num_samples=num_samples)
    csv_files = [] if csv_folder is None else write_csv(material, Path(csv_folder))
    write_file(Path(output), render(material).encode())
    return Report(material, csv_files)


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
