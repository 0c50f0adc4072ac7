"""That a model's terms were shown and accepted, and when."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from amenable.models.catalogue import KnownModel
from amenable.store import settings


def licence_key(name: str) -> str:
    return f"licence:{name}"


def accept_licence(session: Session, known: KnownModel) -> None:
    accepted = {
        "licence": known.licence,
        "terms": known.terms,
        "accepted_at": datetime.now(UTC).isoformat(),
    }
    settings.put(session, licence_key(known.name), accepted)


def is_accepted(session: Session, name: str) -> bool:
    return settings.get(session, licence_key(name)) is not None
