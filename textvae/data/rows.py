"""The rows of a source one at a time, blank ones as "", to be read several times."""

from collections.abc import Iterator

from textvae.data.columns import Columns
from textvae.data.hub import HUB_PREFIX, stream_hub, stream_parquet
from textvae.data.reading import form_of
from textvae.data.stream import Lines
from textvae.errors import DataError


def rows_of(source: str, text_column: str | None = None) -> Iterator[str]:
    """The rows of a text file (.gz too), a parquet file or a hub data set.

    Raises:
        DataError: another form, or text that cannot be read, when it is come to.
    """
    columns = Columns(text_column, None)
    if source.startswith(HUB_PREFIX):
        return stream_hub(source, columns)
    form = form_of(source)
    if form == ".parquet":
        return stream_parquet(source, columns)
    if form != ".txt" or text_column is not None:
        raise DataError(
            f"{source}: only plain text, parquet and hub data sets are streamed; convert it, or "
            "leave out data.stream"
        )
    return Lines(source).rows()
