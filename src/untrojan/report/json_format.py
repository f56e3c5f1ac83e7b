"""The JSON forms: one record, or all the records of a report."""

from __future__ import annotations

import json

from pydantic_core import PydanticSerializationError

from untrojan.errors import DataError
from untrojan.records import Record
from untrojan.report.content import ReportContent

SCHEMA = "untrojan-report-1"


def render_json(record: Record) -> str:
    """A record in its public form: ``schema`` first, two spaces of indent, null for what is not finite, a newline.

    Raises DataError if a setting of the record has no JSON form.
    """
    try:
        return record.model_dump_json(by_alias=True, indent=2) + "\n"
    except (PydanticSerializationError, UnicodeError) as error:
        raise DataError(f"{type(record).__name__} has no JSON form: {str(error).splitlines()[0]}") from None


def render_content_json(content: ReportContent) -> str:
    """The only record of a report as ``render_json`` writes it; several under their names, null for the absent."""
    records = {"scan": content.scan, "guard": content.guard, "evaluation": content.evaluation}
    present = [record for record in records.values() if record is not None]
    if len(present) == 1:
        return render_json(present[0])
    written = {
        name: json.loads(render_json(record)) if record is not None else None for name, record in records.items()
    }
    return json.dumps({"schema": SCHEMA, **written}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
