"""The JSON form of a record."""

from __future__ import annotations

from pydantic_core import PydanticSerializationError

from untrojan.errors import DataError
from untrojan.records import Record


def render_json(record: Record) -> str:
    """A record in its public form: ``schema`` first, two spaces of indent, null for what is not finite, a newline.

    Raises DataError if a setting of the record has no JSON form.
    """
    try:
        return record.model_dump_json(by_alias=True, indent=2) + "\n"
    except (PydanticSerializationError, UnicodeError) as error:
        raise DataError(f"{type(record).__name__} has no JSON form: {str(error).splitlines()[0]}") from None
