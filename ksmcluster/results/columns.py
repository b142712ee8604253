"""Tables of results: columns by name, all of the same length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cluster.spec.statistics import OF_PROCESS, UNITS
from ksmcluster.report import text
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_UNITS = UNITS | {statistic.name: statistic.unit for statistic in OF_PROCESS}


class ColumnTable(dict[str, NDArray[Any]]):
    """A table of numpy arrays; columns of texts or with missing values are object arrays."""

    @classmethod
    def of_arrow(cls, table: pa.Table) -> Self:
        """Return the columns of a pyarrow table."""
        return cls({name: _array(table[name]) for name in table.column_names})

    def to_arrow(self) -> pa.Table:
        """Return the table as a pyarrow table."""
        import pyarrow as pa

        return with_units(pa.table(dict(self)))

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a data frame. Raises UserError if pandas is not installed."""
        return data_frame(self.to_arrow())

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.values()), ()))

    def __repr__(self) -> str:
        size = f"{text.counted(self.num_rows, 'row')}, {text.counted(len(self), 'column')}"
        return f"<{type(self).__name__}: {size}>"


def with_units(table: pa.Table) -> pa.Table:
    """Return the table with the unit of each statistic in the metadata of its column."""
    import pyarrow as pa

    fields = [
        field.with_metadata({"unit": unit}) if (unit := _UNITS.get(field.name)) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def data_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a data frame. Raises UserError if pandas is not installed."""
    try:
        import pandas  # noqa: F401 (pyarrow says it in many lines)
    except ImportError as error:
        raise UserError("to_pandas: needs pandas: pip install 'ksmcluster[pandas]'") from error
    return table.to_pandas()


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    import pyarrow as pa

    if column.null_count or pa.types.is_string(column.type):
        values = np.empty(len(column), object)
        values[:] = column.to_pylist()
        return values
    found: NDArray[Any] = column.to_numpy()
    return found
