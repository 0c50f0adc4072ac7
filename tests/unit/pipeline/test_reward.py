"""From comparisons to a reward model, its numbers, and all the places that must not talk to it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import put_tiny, tiny_tokenizer
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, SMALL_FIT, done, queue, run

from amenable.chat.encode import Encoder
from amenable.chat.packing import Limit
from amenable.chat.template import chat_form
from amenable.datasets.examples import (
    Example,
    PreferenceExample,
    PromptExample,
    RankingExample,
)
from amenable.feedback.tasks import Pile
from amenable.models.reward_model import HEADS_FILE
from amenable.pipeline.config import ExportConfig
from amenable.pipeline.engines import EngineRoom
from amenable.pipeline.export import export_model
from amenable.pipeline.finetune import CHECKPOINT
from amenable.pipeline.judged_rows import ReplyRows
from amenable.pipeline.judgements import Wanted, judgements
from amenable.pipeline.progress import read_metrics
from amenable.pipeline.reward import RESULT_FILE, read_result
from amenable.pipeline.reward_rows import (
    Chosen,
    JudgedPrompt,
    JudgedPrompts,
    is_held_out,
    judged_prompts,
    split,
)
from amenable.pipeline.simulate import judge_what_waits
from amenable.pipeline.sources import Sources, install_starter
from amenable.pipeline.stage import execute, resume
from amenable.pipeline.stages import STAGES
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError, ModelError
from amenable.records.judgement import Choice, Comparison, Judged
from amenable.store import library, runs
from amenable.store.library import DatasetEntry
from amenable.store.tables import RunRow
from amenable.store.workspace import Workspace

ENCODER = Encoder(tiny_tokenizer("gemma"), chat_form("gemma"), begin=2, end_of_text=1)
REWARD = {"max_tokens": 120, "fit": SMALL_FIT, "lora": {"rank": 2}}
SILENT = "tiny-reward is a reward model: it scores replies, and says nothing itself."


def compared(
    choice: Choice,
    left: str = "Left.",
    right: str = "Right.",
    *,
    asked: str = "Hi",
    mended: str | None = None,
) -> Comparison:
    return Comparison(
        prompt=Conversation.of(("user", asked)),
        left=Judged(left, has_end=True),
        right=Judged(right, has_end=True),
        choice=choice,
        person="Ada",
        is_simulated=False,
        seconds_spent=1.0,
        mended=mended,
    )


def judged(*comparisons: Comparison, room: int = 1000) -> JudgedPrompts:
    return judged_prompts(ReplyRows(ENCODER, Limit(60)), comparisons, room)


def replies(tree: JudgedPrompt) -> list[str]:
    """What the branches say; the prompt's last words stand in a prefix or before a target."""
    return [
        ENCODER.decode([id_ for id_, on in zip(*branch, strict=True) if on])
        for branch in tree.tree.branches
    ]


def said(found: JudgedPrompts) -> set[tuple[str, str, bool, float]]:
    """Every order in words: better, worse, whether it is a tie, its weight."""
    return {
        (texts[order.better], texts[order.worse], order.is_tie, round(order.weight, 3))
        for tree in found.trees
        for texts in [replies(tree)]
        for order in tree.judged.orders
    }


def test_replies_to_a_prompt_make_one_tree_with_every_order_of_them():
    found = judged(compared("left"), compared("right", "Left.", "Third."), compared("tie"))
    (tree,) = found.trees
    assert replies(tree) == ["Left.", "Right.", "Third."]
    assert said(found) == {
        ("Left.", "Right.", False, 1.0),
        ("Third.", "Left.", False, 1.0),
        ("Left.", "Right.", True, 1.0),
    }
    assert tree.choices == (Chosen(0, 1), Chosen(2, 0))  # a tie tells of no accuracy
    assert (found.num_used, found.num_both_bad, found.num_left_out) == (3, 0, 0)


def test_a_mended_reply_beats_both_and_the_judgement_counts_as_one():
    assert said(judged(compared("left", mended="Mended."))) == {
        ("Mended.", "Left.", False, 0.333),
        ("Mended.", "Right.", False, 0.333),
        ("Left.", "Right.", False, 0.333),
    }
    both_bad = judged(compared("both_bad", mended="Mended."))
    assert said(both_bad) == {
        ("Mended.", "Left.", False, 0.5),
        ("Mended.", "Right.", False, 0.5),
    }
    assert both_bad.trees[0].choices == ()


def test_a_judgement_counts_by_its_weight_and_asks_for_its_margin():
    much = replace(compared("right"), weight=2.0, margin=1.5)
    equal = replace(compared("tie", "Left.", "Third."), weight=0.5, margin=1.5)
    (tree,) = judged(much, equal).trees
    assert [(order.weight, order.margin) for order in tree.judged.orders] == [(2.0, 1.5), (0.5, 0)]


def test_a_ranking_from_a_file_is_one_tree_whose_pairs_count_as_one(workspace: Workspace):
    ranking = RankingExample(
        prompt=Conversation.of(("user", "Hi")),
        replies=("Second.", "First.", "Also second."),
        ranks=(2, 1, 2),
    )
    install_starter(workspace)  # a part of its prompts is sealed
    put_examples(workspace, "ranked", [ranking])
    with workspace.database.read() as session:
        found = judgements(session, workspace.folder, Wanted(sets=("ranked",)))
    (tree,) = judged(*found.comparisons).trees
    assert said(JudgedPrompts([tree], 3, 0, 0)) == {
        ("First.", "Second.", False, 0.333),
        ("First.", "Also second.", False, 0.333),
        ("Second.", "Also second.", True, 0.333),
    }


def test_what_orders_nothing_is_counted():
    asked = "word " * 70
    found = judged(
        compared("both_bad"),
        compared("left", "Same.", "Same."),
        compared("left", asked=asked),
        compared("left", "then " * 60 + "a", "then " * 60 + "b"),  # alike up to where it is cut
        compared("right"),
    )
    assert (found.num_used, found.num_both_bad, found.num_left_out) == (1, 1, 3)


def test_a_prompt_with_more_replies_than_there_is_room_for_grows_several_trees():
    comparisons = [compared("left", f"Good {at}.", f"Bad {at}.") for at in range(6)]
    whole, cut = judged(*comparisons), judged(*comparisons, room=40)
    assert len(whole.trees) == 1
    assert len(cut.trees) > 1
    assert all(tree.tree.num_tokens <= 40 for tree in cut.trees)
    assert said(cut) == said(whole)


def many(num: int = 40, choice: Choice = "left") -> list[Comparison]:
    return [compared(choice, asked=f"Question {at}?") for at in range(num)]


TREES = judged(*many(), *many(choice="right")).trees


@given(st.randoms(use_true_random=False), st.integers(0, 99))
def test_a_prompt_is_held_out_whatever_stands_beside_it(draw: random.Random, seed: int):
    some = draw.sample(TREES, 30)
    sides = split(JudgedPrompts(some, num_used=60, num_both_bad=0, num_left_out=0), 0.3, seed)
    held_out, learned = ({tree.prompt for tree in side} for side in (sides.held_out, sides.learned))
    assert not held_out & learned
    assert held_out == {each.prompt for each in some if is_held_out(each.prompt, 0.3, seed)}


def test_about_the_share_asked_for_is_held_out_and_another_seed_holds_out_others():
    prompts = [each.prompt for each in many(1000)]
    sides = [[is_held_out(prompt, 0.2, seed) for prompt in prompts] for seed in (1, 2)]
    assert all(160 < sum(side) < 240 for side in sides)  # 200 expected, 13 its deviation
    assert sides[0] != sides[1]


def test_conversations_that_begin_alike_go_one_way():
    for at in range(20):
        first = Conversation.of(("user", f"Hello {at}"))
        longer = Conversation.of(
            ("system", "Be kind."), ("user", f"hello  {at}"), ("assistant", "Yes?"), ("user", "So")
        )
        assert is_held_out(first, 0.5, 1) == is_held_out(longer, 0.5, 1)


def test_too_few_comparisons_say_how_many_are_missing():
    with pytest.raises(DataError, match="there are 13, which is 7 too few"):
        split(judged(*many(13), compared("both_bad")), 0.2, seed=1)


@pytest.mark.parametrize("share", [1e-6, 1 - 1e-6])
def test_a_side_without_a_choice_says_what_is_missing(share: float):
    doing = "measure on" if share < 0.5 else "learn from"
    with pytest.raises(DataError, match=f"left to {doing}: there are choices on 40 prompts"):
        split(judged(*many()), share, seed=1)


@pytest.fixture
def version_1(workspace: Workspace) -> str:
    """A version 1 with judged pairs of replies."""
    install_starter(workspace)
    name = done(workspace, "finetune", put_tiny(workspace), SMALL_FINETUNE | {"limit": 2})
    done(workspace, "sample", name, {"num_prompts": 30, "max_new_tokens": 4})
    with workspace.database.write() as session:
        judge_what_waits(session, [Pile("improve")], seed=1)
    return name


def test_a_reward_model_is_kept_once_with_what_it_is_right_on(workspace: Workspace, version_1: str):
    ended = run(workspace, "reward", version_1, REWARD)
    assert ended.error is None
    result = read_result(workspace.run_folder(ended.id))
    assert result.held_out.num + result.num_learned <= int(ended.outputs["comparisons"])
    assert ended.outputs["choices_held_out"] == str(result.held_out.num)
    assert ended.outputs["accuracy"].endswith(")")
    assert result.is_simulated
    metrics = read_metrics(workspace.run_folder(ended.id))
    assert metrics[0]["loss"] == pytest.approx(log(2), abs=0.5)  # new heads are near a guess
    with workspace.database.read() as session:
        row = library.model(session, "tiny-reward")
    assert (row.kind, row.parent, row.base, row.is_simulated) == ("reward", version_1, "tiny", True)
    assert row.info["accuracy"] == ended.outputs["accuracy"]
    assert (workspace.folder / row.folder / HEADS_FILE).is_file()

    with workspace.database.write() as session:  # as if it had died after that
        session.get_one(RunRow, ended.id).status = "failed"
    resume(workspace, ended.id)
    assert execute(workspace, ended.id, STAGES).outputs == ended.outputs
    assert read_metrics(workspace.run_folder(ended.id)) == metrics
    assert not (workspace.run_folder(ended.id) / CHECKPOINT).exists()


def put_examples(workspace: Workspace, name: str, examples: Sequence[Example]) -> None:
    kind = str(examples[0].to_json()["type"])
    entry = DatasetEntry(name=name, sha256="0" * 64, kind=kind, source="rows.jsonl")
    with workspace.database.write() as session:
        library.add_dataset(session, entry, [each.to_json() for each in examples])


def put_pairs(workspace: Workspace, name: str = "pairs", num: int = 60) -> None:
    """Short replies are better; one row is of equal replies."""
    rows = [
        PreferenceExample(
            prompt=Conversation.of(("user", f"Question {at}?")),
            chosen="Yes.",
            rejected="No, and no again, and no for ever." if at else "Yes.",
        )
        for at in range(num)
    ]
    put_examples(workspace, name, rows)


def from_data(workspace: Workspace, model: str, names: str, **config: object) -> str:
    with workspace.database.write() as session:
        return runs.queue(
            session,
            stage="reward",
            inputs={"model": model, "data": names},
            config=REWARD | config,
            seed=3,
        )


def test_a_base_learns_from_imported_pairs_alone(workspace: Workspace):
    """Length decides here, so that it can be learned by a tiny network, and is named as such."""
    base = put_tiny(workspace)
    put_pairs(workspace)
    fit = SMALL_FIT | {"num_epochs": 6, "learning_rate": 1e-2}
    run_id = from_data(workspace, base, "pairs", fit=fit)
    ended = execute(workspace, run_id, STAGES)
    assert ended.error is None
    assert (ended.outputs["judged"], ended.outputs["imported"]) == ("0", "59")
    assert ended.outputs["equal"] == "1"
    assert ended.outputs["longer_wins"] == "0 %"
    held_out = read_result(workspace.run_folder(run_id)).held_out
    assert held_out.accuracy.value == 1.0
    assert (held_out.length, held_out.by_length.value) == ("shorter", 1.0)
    with workspace.database.read() as session:
        row = library.model(session, "tiny-reward")
    assert (row.parent, row.base, row.is_simulated) == (base, base, False)
    assert row.info["judged_sets"] == {"pairs": "0" * 64}


def test_a_version_that_was_trained_whole_gets_an_adapter_of_its_own(workspace: Workspace):
    install_starter(workspace)
    put_pairs(workspace)
    finetune = SMALL_FINETUNE | {"method": "layers", "limit": 2}
    whole = done(workspace, "finetune", put_tiny(workspace), finetune)
    ended = execute(workspace, from_data(workspace, whole, "pairs"), STAGES)
    assert ended.error is None
    with workspace.database.read() as session:
        row = library.model(session, f"{whole}-reward")
    assert (row.kind, row.parent, row.base) == ("reward", whole, whole)


def test_sealed_prompts_teach_no_reward_model(workspace: Workspace):
    put_pairs(workspace)
    rows = [
        PromptExample(conversation=Conversation.of(("user", f"question {at}?"))).to_json()
        for at in range(50)
    ]
    entry = DatasetEntry(name="exam", sha256="1" * 64, kind="prompt", source="exam.jsonl")
    with workspace.database.write() as session:
        library.add_dataset(session, entry, rows, exam_positions=range(45))
        Sources(prompts=("exam",)).keep(session)
    ended = execute(workspace, from_data(workspace, put_tiny(workspace), "pairs"), STAGES)
    assert str(ended.error).startswith("A reward model takes 20 comparisons")
    assert "there are 15, which is 5 too few" in str(ended.error)


def test_a_data_set_of_another_type_is_refused(workspace: Workspace):
    install_starter(workspace)
    ended = execute(workspace, from_data(workspace, put_tiny(workspace), "starter-prompts"), STAGES)
    assert (
        ended.error
        == "'starter-prompts' holds prompts, where preference pairs or rankings are needed."
    )


def test_a_stopped_run_goes_on_with_what_it_began_with(workspace: Workspace, version_1: str):
    unbroken = run(workspace, "reward", version_1, REWARD)
    run_id = queue(workspace, "reward", version_1, REWARD)
    stop = iter([False, True])
    assert execute(workspace, run_id, STAGES, should_leave=lambda: next(stop, True)).status == (
        "stopped"
    )
    done(workspace, "sample", version_1, {"num_prompts": 40, "max_new_tokens": 4})
    with workspace.database.write() as session:
        assert judge_what_waits(session, [Pile("improve")], seed=1)
    resume(workspace, run_id)
    ended = execute(workspace, run_id, STAGES)
    assert ended.outputs == {**unbroken.outputs, "model": "tiny-reward-2"}
    folders = [workspace.run_folder(each.id) for each in (unbroken, ended)]
    first, second = ((folder / RESULT_FILE).read_bytes() for folder in folders)
    assert first == second


@pytest.fixture
def silent(workspace: Workspace) -> Workspace:
    """A workspace with a base and a reward model."""
    install_starter(workspace)
    put_pairs(workspace)
    run_id = from_data(workspace, put_tiny(workspace), "pairs")
    assert execute(workspace, run_id, STAGES).outputs["model"] == "tiny-reward"
    return workspace


def test_nothing_talks_to_a_reward_model_or_trains_on_it(silent: Workspace):
    room = EngineRoom(silent)
    assert [ref.name for ref in room.listed()] == ["tiny", "tiny (helped)"]
    with pytest.raises(ModelError, match=SILENT):
        room.engine_of("tiny-reward")
    with pytest.raises(ModelError, match=SILENT):
        export_model(silent, "tiny-reward", silent.folder / "out", ExportConfig())
    for stage in ("prepare", "finetune", "align", "reward", "sample"):
        assert run(silent, stage, "tiny-reward").error == SILENT, stage
    with silent.database.write() as session:
        run_id = runs.queue(
            session, stage="compare", inputs={"models": "tiny,tiny-reward"}, config={}, seed=1
        )
    assert execute(silent, run_id, STAGES).error == SILENT


def test_a_damaged_reward_model_cannot_be_brought_again(silent: Workspace):
    (silent.library / "tiny-reward" / HEADS_FILE).unlink()
    error = str(run(silent, "prepare", "tiny-reward").error)
    assert "cannot be brought again: it was trained here" in error
