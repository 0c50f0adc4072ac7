"""From comparisons to version 2."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest
from sqlalchemy import select
from tests.tiny import put_tiny, tiny_tokenizer
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, SMALL_FIT, done, queue, run

from amenable.chat.encode import Encoder
from amenable.chat.packing import Limit
from amenable.chat.template import chat_form
from amenable.chat.trees import num_shared
from amenable.datasets.examples import Example, PreferenceExample, PromptExample, RatedExample
from amenable.feedback import export, people, tasks
from amenable.feedback.tasks import Submission
from amenable.pipeline.align import displacement
from amenable.pipeline.compare_sources import facts
from amenable.pipeline.config import AlignConfig, PreferenceConfig, PreferenceLoss
from amenable.pipeline.judged_rows import ReplyRows, training_pairs, training_replies
from amenable.pipeline.progress import read_metrics
from amenable.pipeline.simulate import judge_what_waits
from amenable.pipeline.sources import install_starter
from amenable.pipeline.stage import execute, resume
from amenable.pipeline.stages import STAGES
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError
from amenable.records.judgement import Choice, Comparison, Judged, Rating
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.store import library, runs
from amenable.store.library import DatasetEntry
from amenable.store.samples import keep_sample
from amenable.store.tables import JudgementRow, VerdictRow
from amenable.store.workspace import Workspace

ENCODER = Encoder(tiny_tokenizer("gemma"), chat_form("gemma"), begin=2, end_of_text=1)
PROMPT = Conversation.of(("user", "Hi"), ("assistant", "Hello."), ("user", "And now?"))
CUT_OFF = "Right, and then"
ALIGN = {"max_tokens": 120, "fit": SMALL_FIT}


def compared(choice: Choice, mended: str | None = None, right: str = "Right.") -> Comparison:
    return Comparison(
        prompt=PROMPT,
        left=Judged("Left.", has_end=True),
        right=Judged(right, has_end=right != CUT_OFF),
        choice=choice,
        person="Ada",
        is_simulated=False,
        seconds_spent=1.0,
        mended=mended,
    )


def rows(max_tokens: int, *, leaves_out: bool = False) -> ReplyRows:
    return ReplyRows(ENCODER, Limit(max_tokens, leaves_out))


def texts(comparisons: list[Comparison], max_tokens: int = 100) -> list[tuple[str, str]]:
    """Chosen and rejected, as the loss sees them: targets alone, the end of turn left out."""
    found: list[tuple[str, str]] = []
    for pair in training_pairs(rows(max_tokens), comparisons).pairs:
        chosen, rejected = (
            ENCODER.decode([id_ for id_, on in zip(*row, strict=True) if on]) for row in pair.rows
        )
        found.append((chosen, rejected))
    return found


def test_what_was_chosen_is_preferred_whichever_side_it_stood_on():
    assert texts([compared("left"), compared("right")]) == [
        ("Left.", "Right."),
        ("Right.", "Left."),
    ]


def test_ties_and_both_bad_teach_no_order():
    assert (
        len(texts([compared("left"), compared("tie"), compared("both_bad"), compared("left")])) == 2
    )


def test_a_mended_reply_is_chosen_over_both_that_were_shown():
    assert texts([compared("both_bad", mended="Mended.")]) == [
        ("Mended.", "Left."),
        ("Mended.", "Right."),
    ]


def asked_at_length() -> Comparison:
    return replace(
        compared("left"),
        prompt=Conversation.of(("user", "word " * 90)),
        right=Judged("b", has_end=True),
    )


def test_equal_replies_and_replies_beyond_the_limit_are_left_out():
    kept = [compared("left"), compared("right")]
    assert len(texts([*kept, compared("left", right="Left.")])) == 2
    found = training_pairs(rows(60), [*kept, asked_at_length()])
    assert (len(found.pairs), found.num_left_out) == (2, 1)


def test_prompts_that_leave_no_room_are_named_as_the_reason():
    with pytest.raises(DataError, match=r"2 of the judged prompts leave no room .* 60 tokens"):
        training_pairs(rows(60), [asked_at_length(), asked_at_length()])


def test_a_reply_that_was_cut_off_has_no_end_to_learn_from():
    (end,) = ENCODER.tokenizer.encode("<end_of_turn>", add_special_tokens=False).ids
    found = training_pairs(rows(100), [compared("left", right=CUT_OFF), compared("left")]).pairs
    ends = [
        [any(id_ == end and on for id_, on in zip(*row, strict=True)) for row in pair.rows]
        for pair in found
    ]
    assert ends == [[True, False], [True, True]]


def test_replies_beyond_the_limit_lose_their_end_or_are_left_out_and_are_counted():
    long = compared("right", right="word " * 60)
    kept = [compared("left"), compared("right"), long, replace(long, choice="left")]
    cutting, leaving = rows(60), rows(60, leaves_out=True)
    assert (len(training_pairs(cutting, kept).pairs), cutting.num_cut) == (4, 1)
    found = training_pairs(leaving, kept)
    assert (len(found.pairs), found.num_left_out, leaving.num_cut) == (2, 2, 0)


def test_too_few_to_learn_from_says_what_to_do():
    with pytest.raises(DataError, match="Judge some more pairs first"):
        training_pairs(rows(100), [compared("left"), compared("tie")])


@pytest.fixture
def version_1(workspace: Workspace) -> str:
    """A version 1 with 24 pairs of replies to judge."""
    install_starter(workspace)
    name = done(workspace, "finetune", put_tiny(workspace), SMALL_FINETUNE)
    sample = {"purpose": "improve", "num_prompts": 24, "max_new_tokens": 8}
    return done(workspace, "sample", name, sample)


def test_version_2_starts_at_ln_2_and_remembers_its_parents(workspace: Workspace, version_1: str):
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("improve")], seed=1)
    run_id = queue(workspace, "align", version_1, ALIGN)
    ended = execute(workspace, run_id, STAGES)
    assert ended.status == "done", ended.error
    assert ended.outputs["model"] == "tiny-instruct-2"
    metrics = read_metrics(workspace.run_folder(run_id))
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert {"accuracy", "margin", "gain_chosen", "gain_rejected", "imitation"} <= metrics[0].keys()
    with workspace.database.read() as session:
        row = library.model(session, "tiny-instruct-2")
        parent = library.model(session, version_1)
    assert (row.parent, row.base, row.is_simulated) == (version_1, "tiny", True)
    info = json.loads((workspace.folder / row.folder / "amenable.json").read_text("utf-8"))
    assert info["parent_sha256"] == parent.sha256
    assert int(ended.outputs["comparisons"]) <= 24
    assert not parent.is_simulated


GAINS = ("gain_good", "gain_bad")


@pytest.mark.parametrize("loss", get_args(PreferenceLoss))
def test_every_loss_makes_a_version_that_prefers_more(
    workspace: Workspace, version_1: str, loss: PreferenceLoss
):
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("improve")], seed=1)
    fit = SMALL_FIT | {"num_epochs": 8, "learning_rate": 1e-3}
    preference = {"loss": loss, "flip_rate": 0.0, "sft_weight": 0.0 if loss != "orpo" else 1.0}
    run_id = queue(workspace, "align", version_1, ALIGN | {"fit": fit, "preference": preference})
    ended = execute(workspace, run_id, STAGES)
    assert ended.error is None
    metrics = read_metrics(workspace.run_folder(run_id))
    if loss == "kto":
        good, bad = ([each[name] for each in metrics if name in each][-1] for name in GAINS)
        assert good > bad
    else:
        assert metrics[-1]["margin"] > metrics[0]["margin"]
        assert ("gain_chosen" in metrics[-1]) == (loss not in ("orpo", "simpo"))
    has_reference = any(workspace.run_folder(run_id).glob("reference-*.safetensors"))
    assert has_reference == (loss not in ("orpo", "simpo"))


def test_replies_by_themselves_are_good_or_bad():
    found = training_replies(
        rows(100),
        [
            compared("left"),
            replace(compared("both_bad"), prompt=Conversation.of(("user", "Something else?"))),
            compared("tie"),
        ],
        seed=1,
    )
    marks = sorted((ENCODER.decode(each.row.tokens)[-30:], each.is_good) for each in found.judged)
    assert [is_good for _, is_good in marks].count(True) == 1
    assert len(marks) == 4  # the tie says nothing of either
    assert sum(each.weight for each in found.judged if each.is_good) == pytest.approx(2.0)
    assert sum(each.weight for each in found.judged if not each.is_good) == pytest.approx(2.0)
    for each in found.judged:
        assert num_shared([each.row, each.stranger]) > 3  # the prompt is the same


def test_good_and_bad_count_the_same_in_all_whatever_their_weights():
    other = replace(compared("left"), prompt=Conversation.of(("user", "Else?")), weight=3.0)
    found = training_replies(rows(100), [compared("left"), other, compared("both_bad")], seed=1)
    for is_good in (True, False):
        total = sum(each.weight for each in found.judged if each.is_good == is_good)
        assert total == pytest.approx(len(found.judged) / 2)
    good = sorted(each.weight for each in found.judged if each.is_good)
    assert good[1] == pytest.approx(3 * good[0])


def test_a_judgement_has_a_weight_or_a_flip_rate():
    weighed = [compared("left"), replace(compared("right"), weight=0.5)]
    pairs = training_pairs(rows(100), weighed, flip_rate=0.2).pairs
    assert [(each.weight, each.flip_rate) for each in pairs] == [(1.0, 0.2), (0.5, 0.0)]


def test_judgements_of_one_prompt_alone_have_no_stranger():
    with pytest.raises(DataError, match="takes several"):
        training_replies(rows(100), [compared("left"), compared("right")], seed=1)


def test_only_judgements_on_its_own_replies_teach_a_version(workspace: Workspace, version_1: str):
    other = done(workspace, "finetune", "tiny", SMALL_FINETUNE)
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("improve")], seed=1)
    ended = execute(workspace, queue(workspace, "align", other, ALIGN), STAGES)
    assert ended.status == "failed"
    assert "prefer no reply to another" in str(ended.error)


def test_a_stopped_improvement_goes_on_with_what_it_began_with(
    workspace: Workspace, version_1: str
):
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("improve")], seed=1)
        before = len(export.comparisons(session, "improve"))
        person_id = session.scalars(select(JudgementRow.person_id).limit(1)).one()
    run_id = queue(workspace, "align", version_1, ALIGN)
    stop = iter([False, False, True])
    ended = execute(workspace, run_id, STAGES, should_leave=lambda: next(stop, True))
    assert ended.status == "stopped"
    with workspace.database.write() as session:
        assert tasks.undo_last(session, person_id, tasks.Pile("improve")) is not None
        assert len(export.comparisons(session, "improve")) == before - 1
    resume(workspace, run_id)
    ended = execute(workspace, run_id, STAGES)
    assert ended.error is None
    assert ended.outputs["judged"] == str(before)
    assert not list((workspace.run_folder(run_id)).glob("checkpoint/broken*"))


def test_one_simulated_answer_marks_the_version(workspace: Workspace, version_1: str):
    with workspace.database.write() as session:
        for at in range(4):
            name, is_simulated = ("Robot", True) if at == 0 else ("Ada", False)
            person_id = people.person(session, name, is_simulated=is_simulated)
            view = tasks.claim_next(session, person_id, tasks.Pile("improve"), datetime.now(UTC))
            assert view is not None
            tasks.submit(
                session,
                Submission(
                    submission_id=f"s{at}",
                    task_id=view.task_id,
                    fence=view.fence,
                    person_id=person_id,
                    choice="left",
                    seconds_spent=1.0,
                ),
            )
    assert done(workspace, "align", version_1, ALIGN) == "tiny-instruct-2"
    with workspace.database.read() as session:
        assert library.model(session, "tiny-instruct-2").is_simulated


def test_without_judgements_it_ends_in_one_line(workspace: Workspace, version_1: str):
    ended = run(workspace, "align", version_1, ALIGN)
    assert ended.status == "failed"
    assert "Judge some more pairs first." in str(ended.error)


def test_a_version_that_was_trained_whole_says_so(workspace: Workspace):
    install_starter(workspace)
    name = done(workspace, "finetune", put_tiny(workspace), SMALL_FINETUNE | {"method": "layers"})
    ended = run(workspace, "align", name, ALIGN)
    assert ended.error == f"{name} was trained whole; Improve works on versions made with LoRA."


def asked(at: int) -> Conversation:
    return Conversation.of(("user", f"Question {at}?"))


def put_rows(workspace: Workspace, name: str, rows: Sequence[Example]) -> None:
    bodies = [row.to_json() for row in rows]
    kind = str(bodies[0]["type"])
    entry = DatasetEntry(name=name, sha256=name.rjust(64, "0"), kind=kind, source="a file")
    with workspace.database.write() as session:
        library.add_dataset(session, entry, bodies)


def pairs(num: int) -> list[PreferenceExample]:
    """The last one's replies are equal."""
    replies = [("Yes.", "No.")] * (num - 1) + [("Yes.", "Yes.")]
    return [
        PreferenceExample(prompt=asked(at), chosen=chosen, rejected=rejected)
        for at, (chosen, rejected) in enumerate(replies)
    ]


def ratings(num: int) -> list[RatedExample]:
    return [
        RatedExample(prompt=asked(at), reply=f"Reply {at}.", is_good=at % 2 == 0)
        for at in range(num)
    ]


def from_data(workspace: Workspace, model: str, names: str, **preference: object) -> str:
    with workspace.database.write() as session:
        return runs.queue(
            session,
            stage="align",
            inputs={"model": model, "comparisons": "improve", "data": names},
            config=ALIGN | {"preference": preference},
            seed=3,
        )


@pytest.fixture
def finetuned(workspace: Workspace) -> str:
    """A version 1 of which nobody judged a reply."""
    install_starter(workspace)
    return done(workspace, "finetune", put_tiny(workspace), SMALL_FINETUNE | {"limit": 2})


def test_imported_pairs_teach_a_version_that_nobody_judged(workspace: Workspace, finetuned: str):
    put_rows(workspace, "ours", pairs(6))
    put_rows(workspace, "theirs", pairs(4))
    run_id = from_data(workspace, finetuned, "ours,theirs")
    ended = execute(workspace, run_id, STAGES)
    assert ended.error is None
    assert ended.outputs == {
        "model": "tiny-instruct-2",
        "judged": "0",
        "newest_vote": "0",
        "comparisons": "0",
        "imported": "8",
        "equal": "2",
    }
    assert read_metrics(workspace.run_folder(run_id))[0]["loss"] == pytest.approx(math.log(2))
    with workspace.database.read() as session:
        row = library.model(session, "tiny-instruct-2")
        (said,) = [each for key, each in facts(session, row).items() if "imported" in key]
    assert not row.is_simulated
    assert said.startswith("ours (sha256 000")
    assert "theirs (sha256" in said


def test_the_length_of_what_was_chosen_is_said(workspace: Workspace, finetuned: str):
    rows = [
        PreferenceExample(prompt=asked(at), chosen="Yes, and so it is.", rejected="No.")
        for at in range(4)
    ]
    put_rows(workspace, "long", rows)
    turned = [replace(each, chosen=each.rejected, rejected=each.chosen) for each in rows]
    put_rows(workspace, "short", turned)
    longer, shorter = (
        execute(workspace, from_data(workspace, finetuned, name), STAGES).outputs
        for name in ("long", "short")
    )
    assert int(longer["longer"]) == int(shorter["shorter"]) > 0
    assert "shorter" not in longer


def test_pairs_that_differ_in_one_word_of_many_are_counted(workspace: Workspace, finetuned: str):
    one = "so " * 40
    alike = [
        PreferenceExample(prompt=asked(at), chosen=one + "a", rejected=one + "b") for at in range(2)
    ]
    put_rows(workspace, "ours", [*alike, *pairs(4)])
    ended = execute(workspace, from_data(workspace, finetuned, "ours"), STAGES)
    assert ended.outputs["alike"] == "2"
    ended = execute(workspace, from_data(workspace, finetuned, "ours", loss="simpo"), STAGES)
    assert "alike" not in ended.outputs  # no parent was read


def test_imported_pairs_go_along_with_what_people_judged(workspace: Workspace, version_1: str):
    with workspace.database.write() as session:
        judge_what_waits(session, [tasks.Pile("improve")], seed=1)
    put_rows(workspace, "ours", pairs(6))
    ended = execute(workspace, from_data(workspace, version_1, "ours"), STAGES)
    assert ended.error is None
    assert int(ended.outputs["judged"]) > 10
    assert ended.outputs["imported"] == "5"


def test_an_imported_prompt_without_room_is_counted(workspace: Workspace, finetuned: str):
    long = PreferenceExample(
        prompt=Conversation.of(("user", "word " * 150)), chosen="Yes.", rejected="No."
    )
    put_rows(workspace, "ours", [*pairs(6), long])
    ended = execute(workspace, from_data(workspace, finetuned, "ours"), STAGES)
    assert ended.outputs["left_out"] == "1"


def test_data_sets_of_another_type_are_refused(workspace: Workspace, finetuned: str):
    put_rows(workspace, "rated", ratings(6))
    put_rows(workspace, "asked", [PromptExample(conversation=asked(1))])
    errors = [
        execute(workspace, from_data(workspace, finetuned, names, loss=loss), STAGES).error
        for names, loss in [("rated", "dpo"), ("asked", "kto"), ("nowhere", "dpo")]
    ]
    assert errors[:2] == [
        "'rated' holds rated replies, where preference pairs or rankings are needed.",
        "'asked' holds prompts, where preference pairs or rated replies are needed.",
    ]
    assert str(errors[2]).startswith("There is no data set 'nowhere'.")


def test_ratings_teach_replies_by_themselves():
    said = [
        Rating(prompt=each.prompt, reply=Judged(each.reply, has_end=True), is_good=each.is_good)
        for each in ratings(3)
    ]
    found = training_replies(rows(100), [], seed=1, ratings=said)
    marks = sorted((ENCODER.decode(each.row.tokens)[-8:], each.is_good) for each in found.judged)
    assert [is_good for _, is_good in marks] == [True, False, True]
    assert [each.weight for each in found.judged if not each.is_good] == [pytest.approx(1.5)]


def put_thumb(workspace: Workspace, model: str, at: int, *, is_good: bool) -> int:
    """A reply said in the chat, with a thumb; gives the sample's id."""
    with workspace.database.write() as session:
        ref = ModelRef(model, library.model(session, model).sha256)
        said = Sample(
            prompt=asked(at),
            reply=f"Said {at}.",
            model=ref,
            settings=SamplingSettings(),
            seed=at,
            stop_reason="stop",
            num_tokens=3,
        )
        sample_id = keep_sample(session, said, run_id=None, prompt_key="chat")
        session.add(
            VerdictRow(
                sample_id=sample_id,
                person_id=people.person(session, "Ada"),
                is_good=is_good,
                created_at=datetime.now(UTC),
            )
        )
        return sample_id


def test_kto_learns_from_thumbs_on_its_parents_replies_and_rated_files(
    workspace: Workspace, finetuned: str
):
    put_rows(workspace, "rated", ratings(6))
    for at in range(4):
        put_thumb(workspace, finetuned, at, is_good=at < 2)
    put_thumb(workspace, "tiny", 9, is_good=True)  # of another model
    ended = execute(workspace, from_data(workspace, finetuned, "rated", loss="kto"), STAGES)
    assert ended.error is None
    assert (ended.outputs["thumbs"], ended.outputs["imported"]) == ("4", "6")
    dpo = execute(workspace, from_data(workspace, finetuned, ""), STAGES)
    assert "prefer no reply to another" in str(dpo.error)  # to whom thumbs say nothing


def test_a_thumb_that_is_turned_round_meanwhile_is_for_the_next_run(
    workspace: Workspace, finetuned: str
):
    put_rows(workspace, "rated", ratings(8))
    sample_ids = [put_thumb(workspace, finetuned, at, is_good=True) for at in range(4)]
    run_id = from_data(workspace, finetuned, "rated", loss="kto")
    stop = iter([False, True])
    ended = execute(workspace, run_id, STAGES, should_leave=lambda: next(stop, True))
    assert ended.status == "stopped"
    kept = list(workspace.run_folder(run_id).glob("reference-*"))
    with workspace.database.write() as session:
        session.query(VerdictRow).filter_by(sample_id=sample_ids[0]).one().is_good = False
    put_thumb(workspace, finetuned, 7, is_good=False)
    resume(workspace, run_id)
    ended = execute(workspace, run_id, STAGES)
    assert ended.outputs["thumbs"] == "4"
    assert list(workspace.run_folder(run_id).glob("reference-*")) == kept  # the same key
    assert not list(workspace.run_folder(run_id).glob("checkpoint/broken*"))


@pytest.mark.parametrize(
    ("loss", "gains", "said"),
    [
        ("dpo", [5.0, 5.0, 5.0, -1.5], {"displaced": "1.5"}),
        ("ipo", [-9.0, -9.0, -9.0, 0.5], {}),
        ("dpo", [0.0, 0.0, 0.0, -0.9], {}),
        ("simpo", [-50.0], {}),
        ("dpo", [], {}),
    ],
)
def test_displacement_is_said_from_one_nat_on(
    loss: PreferenceLoss, gains: list[float], said: dict[str, str]
):
    config = AlignConfig(preference=PreferenceConfig(loss=loss))
    assert displacement([{"gain_chosen": gain} for gain in gains], config) == said
