"""People who judge, and simulated ones, never mistaken for each other."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from amenable.records.errors import ConfigError, ConflictError
from amenable.store.tables import PersonRow

LONGEST_NAME = 100


def person(
    session: Session,
    name: str,
    is_simulated: bool = False,  # noqa: FBT001, FBT002 - the column's own name
    about: Mapping[str, Any] | None = None,
) -> int:
    """The id of the person of this name, who is added if new.

    One name is either a person or a simulated one, for ever: votes must not change their nature.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST_NAME:
        raise ConfigError("name", name, must=f"have 1 to {LONGEST_NAME} letters")
    row = session.scalars(select(PersonRow).where(PersonRow.name == name)).one_or_none()
    if row is None:
        row = PersonRow(
            name=name,
            is_simulated=is_simulated,
            about=dict(about or {}),
            created_at=datetime.now(UTC),
        )
        session.add(row)
        session.flush()
    elif row.is_simulated != is_simulated:
        nature = "a simulated judge" if row.is_simulated else "a person"
        raise ConflictError(f"{name!r} is {nature} already; choose another name.")
    return row.id
