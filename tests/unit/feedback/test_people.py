"""People and simulated judges are never mistaken for each other."""

import pytest

from amenable.feedback import people
from amenable.records.errors import ConfigError, ConflictError
from amenable.store.database import Database


def test_a_person_is_added_once(database: Database):
    with database.write() as session:
        ada = people.person(session, "Ada")
        assert people.person(session, " Ada ") == ada
        assert people.person(session, "Bo") != ada


def test_a_name_never_changes_its_nature(database: Database):
    with database.write() as session:
        people.person(session, "robot", is_simulated=True, about={"reliability": 0.9})
        people.person(session, "Ada")
        with pytest.raises(ConflictError, match="a simulated judge already"):
            people.person(session, "robot")
        with pytest.raises(ConflictError, match="a person already"):
            people.person(session, "Ada", is_simulated=True)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101])
def test_a_person_has_a_name(database: Database, name: str):
    with database.write() as session, pytest.raises(ConfigError):
        people.person(session, name)
