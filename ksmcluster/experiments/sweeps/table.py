"""sweep.parquet: one row for each point and seed, or for each of their passes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ksmcluster.config.overrides import parse_value
from ksmcluster.experiments.figures import unit_of
from ksmcluster.experiments.sweeps.axes import Settings
from ksmcluster.experiments.sweeps.run_one import RunRecord

if TYPE_CHECKING:
    import pyarrow as pa


#: Columns that are neither keys nor figures, with their types in Arrow.
FIXED = {"point": "int64", "seed": "int64", "pass": "int64", "error": "string"}


def sweep_table(points: Sequence[Settings], records: Iterable[RunRecord]) -> pa.Table:
    """Return the table of the records; `points` has the settings by number, from 1.

    Metadata of the schema: `keys`, the columns that vary, and `units` by column, both as JSON.
    """
    import pyarrow as pa

    rows = [row for record in records for row in _rows(points[record.key.point - 1], record)]
    varied = list(dict.fromkeys(key for settings in points for key in settings))
    heads = ["point", "seed", *(["pass"] if any("pass" in row for row in rows) else []), *varied, "error"]
    names = list(dict.fromkeys([*heads, *(name for row in rows for name in row)]))
    columns = {name: _column([row.get(name) for row in rows], FIXED.get(name)) for name in names}
    units = {name: unit_of(name) for name in names if name not in heads}
    fields = [
        pa.field(name, column.type, metadata={"unit": units[name]} if units.get(name) else None)
        for name, column in columns.items()
    ]
    metadata = {"keys": json.dumps(varied), "units": json.dumps(units)}
    return pa.table(list(columns.values()), pa.schema(fields, metadata))


def _rows(settings: Settings, record: RunRecord) -> Iterator[dict[str, Any]]:
    values = {key: _value(value) for key, value in settings.items()}
    whole = {"point": record.key.point, "seed": record.key.seed, **values, **record.figures}
    if not record.passes:
        yield whole | {"error": record.error or None}
    for number, figures in enumerate(record.passes, 1):
        yield whole | {"pass": number, "error": None} | figures


def _value(text: str) -> Any:
    """Return the value of a setting, or its text if it is beyond the limits; that point has failed."""
    try:
        return parse_value(text)
    except ValueError:
        return text


def _column(values: list[Any], kind: str | None) -> pa.Array:
    """Return values as a column: of their type if it is the same, mixed numbers as floats, others as text."""
    import pyarrow as pa

    types = {type(value) for value in values if value is not None}
    if kind is not None or types in ({bool}, {int}, {float}):
        return pa.array(values, kind)
    if types == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    if not types:
        return pa.array(values, pa.float64())
    return pa.array([None if value is None else _text(value) for value in values])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def parquet(table: pa.Table) -> bytes:
    """Return the table as a Parquet file."""
    import io

    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def keys(table: pa.Table) -> list[str]:
    """Return the columns that vary."""
    found: list[str] = json.loads(table.schema.metadata[b"keys"])
    return found


def units(table: pa.Table) -> Mapping[str, str]:
    """Return the units of a table by column."""
    found: dict[str, str] = json.loads(table.schema.metadata[b"units"])
    return found
