"""What pages read of comparisons that asked for nothing anew."""

from sqlalchemy.orm import Session

from amenable.apps.web.queries import compared_replies
from amenable.records.conversation import Conversation
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.store import library, runs
from amenable.store.database import Database
from amenable.store.library import ModelEntry
from amenable.store.samples import keep_sample

OURS, OLDER = "1" * 64, "0" * 64


def compared(session: Session, stage: str = "compare", libraries: str = "1.0") -> str:
    run_id = runs.queue(session, stage=stage, inputs={}, config={}, seed=7)
    runs.start(session, run_id, "1@1.00")
    runs.keep_versions(session, run_id, "1@1.00", {"torch": libraries})
    return run_id


def say(session: Session, run_id: str, key: str, reply: str, model: ModelRef) -> None:
    sample = Sample(
        prompt=Conversation.of(("user", key)),
        reply=reply,
        model=model,
        settings=SamplingSettings(),
        seed=7,
        stop_reason="stop",
        num_tokens=1,
    )
    keep_sample(session, sample, run_id=run_id, prompt_key=key)


def add(session: Session, name: str) -> ModelRef:
    entry = ModelEntry(
        name=name,
        sha256=OURS,
        kind="base",
        chat_form="plain",
        licence="",
        origin="",
        folder="library",
    )
    library.add_model(session, entry)
    return ModelRef(name, OURS)


def said(session: Session, run_id: str) -> list[tuple[str, str]]:
    return [(each.key, each.reply) for each in compared_replies(session, run_id, "base")]


def test_a_repeated_comparison_finds_what_the_first_one_heard(database: Database):
    with database.write() as session:
        ref, first = add(session, "base"), compared(session)
        say(session, first, "a", "One.", ref)
        say(session, first, "b", "Two.", ref)
        repeated = compared(session)
        assert said(session, first) == said(session, repeated) == [("a", "One."), ("b", "Two.")]
        say(session, repeated, "a", "Longer.", ref)  # with another limit
        assert said(session, repeated) == [("a", "Longer."), ("b", "Two.")]


def test_replies_of_other_weights_voices_stages_and_libraries_are_left_out(database: Database):
    with database.write() as session:
        ref, run_id = add(session, "base"), compared(session)
        say(session, run_id, "a", "Before it was made anew.", ModelRef("base", OLDER))
        say(session, run_id, "b", "Helped.", ModelRef("base (helped)", OURS))
        say(session, compared(session, "sample"), "c", "To be judged.", ref)
        say(session, compared(session, libraries="2.0"), "d", "By other libraries.", ref)
        assert said(session, run_id) == []
