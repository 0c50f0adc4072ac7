"""Choices of this workspace: small values under a name."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from amenable.store.tables import SettingRow


def get(session: Session, key: str, default: Any = None) -> Any:
    """What was put under `key`: anything that JSON can hold."""
    row = session.get(SettingRow, key)
    return default if row is None else row.value["value"]


def put(session: Session, key: str, value: Any) -> None:
    now = datetime.now(UTC)
    row = session.get(SettingRow, key)
    if row is None:
        session.add(SettingRow(key=key, value={"value": value}, updated_at=now))
    else:
        row.value, row.updated_at = {"value": value}, now
    session.flush()
