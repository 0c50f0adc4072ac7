"""Samples and settings come back as they went in."""

from datetime import datetime

import pytest

from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.errors import NotFoundError
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.store import samples, settings
from amenable.store.database import Database
from amenable.store.tables import SettingRow


def sample(reply: str = "Ahoy ⚓\n") -> Sample:
    return Sample(
        prompt=Conversation.of(("system", "Be kind."), ("user", "Hi")),
        reply=reply,
        model=ModelRef("base", "0" * 64),
        settings=SamplingSettings(temperature=0.7, stop=("\n\n", "END")),
        seed=2**32 - 1,
        stop_reason="length",
        num_tokens=3,
    )


def test_a_sample_comes_back_whole(database: Database):
    checks = (Check("max_words", 5), Check("include_words", ("sea", "salt")))
    with database.write() as session:
        sample_id = samples.keep_sample(
            session, sample(), run_id="r-1", prompt_key="p-1", family="write", checks=checks
        )

    with database.read() as session:
        kept = samples.sample(session, sample_id)
    assert kept.sample == sample()
    assert (kept.run_id, kept.prompt_key, kept.family, kept.checks) == (
        "r-1",
        "p-1",
        "write",
        checks,
    )
    assert kept.created_at.utcoffset() is not None


def test_the_samples_of_a_run_come_in_order(database: Database):
    with database.write() as session:
        for run_id, reply in (("r-1", "one"), ("r-2", "other"), ("r-1", "two"), (None, "chat")):
            samples.keep_sample(session, sample(reply), run_id=run_id, prompt_key="p")

    with database.read() as session:
        assert [each.sample.reply for each in samples.samples_of(session, "r-1")] == ["one", "two"]
        assert samples.samples_of(session, "none") == []
        with pytest.raises(NotFoundError):
            samples.sample(session, 99)


@pytest.mark.parametrize("value", [True, 0, 1.5, "x", None, [1, "a"], {"a": {"b": []}}])
def test_a_setting_comes_back(database: Database, value: object):
    with database.write() as session:
        assert settings.get(session, "key", "default") == "default"
        settings.put(session, "key", "before")
        settings.put(session, "key", value)

    with database.read() as session:
        assert settings.get(session, "key", "default") == value


def test_a_moment_without_its_zone_is_refused(database: Database):
    naive = datetime(2026, 11, 22)  # noqa: DTZ001 - that it has no zone is the point

    def write() -> None:
        with database.write() as session:
            session.add(SettingRow(key="a", value={}, updated_at=naive))

    with pytest.raises(Exception, match="without its time zone"):
        write()
