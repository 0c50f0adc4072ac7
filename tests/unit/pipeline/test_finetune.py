"""Version 1 of a tiny base: what it leaves in the library, the log and the film strip."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import Family, put_tiny, tiny_tokenizer
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, SMALL_FIT, done, queue, run

from amenable.chat.encode import Encoder
from amenable.chat.template import chat_form
from amenable.datasets.examples import ConversationExample
from amenable.generation.engine import Request
from amenable.models.adapters import ADAPTER_FILE
from amenable.models.policy import Policy
from amenable.pipeline.compare_sources import facts
from amenable.pipeline.config import FinetuneConfig
from amenable.pipeline.engines import EngineRoom
from amenable.pipeline.finetune import (
    CHECKPOINT,
    FILM_PROMPTS,
    Lineage,
    keep_policy,
    training_rows,
)
from amenable.pipeline.progress import RunLog, read_film, read_metrics, read_progress
from amenable.pipeline.sources import (
    LEARNED_FROM,
    STARTER_DEMONSTRATIONS,
    Demonstrations,
    Sources,
    install_starter,
)
from amenable.pipeline.stage import Context, execute, resume
from amenable.pipeline.stages import STAGES
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError
from amenable.records.sample import SamplingSettings
from amenable.store import library, runs
from amenable.store.library import DatasetEntry
from amenable.store.tables import RunRow
from amenable.store.workspace import Workspace
from amenable.training.mixture import seen_in

ENCODER = Encoder(tiny_tokenizer("gemma"), chat_form("gemma"), begin=2, end_of_text=1)
CHATS = [
    Conversation.of(("user", f"Request {at}"), ("assistant", f"Reply {at}.")) for at in range(10)
]


@pytest.fixture
def base(workspace: Workspace) -> str:
    install_starter(workspace)
    return put_tiny(workspace)


def test_version_1_is_kept_with_all_that_is_known_of_it(workspace: Workspace, base: str):
    (workspace.library / base / "LICENCE.txt").write_text("Some terms.", "utf-8")
    run_id = queue(workspace, "finetune", base, SMALL_FINETUNE)
    ended = execute(workspace, run_id, STAGES)
    assert (ended.status, ended.outputs["model"]) == ("done", "tiny-instruct-1"), ended.error
    with workspace.database.read() as session:
        row = library.model(session, "tiny-instruct-1")
        parent = library.model(session, base)
    assert (row.parent, row.base, row.run_id, row.kind) == (base, base, run_id, "policy")
    assert (row.chat_form, row.licence, row.is_simulated) == ("gemma", parent.licence, False)
    folder = workspace.folder / row.folder
    assert (folder / "LICENCE.txt").read_text("utf-8") == "Some terms."
    info = json.loads((folder / "amenable.json").read_text("utf-8"))
    assert (info["base_sha256"], info["run"]) == (parent.sha256, run_id)
    # Rank 2 beside 7 linear layers in each of 2 layers, and 2 marker rows of width 32.
    widths = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    expected = 2 * sum(2 * (left + right) for left, right in widths) + 2 * 32
    assert row.info["num_trained"] == expected
    assert not list(workspace.library.glob("*.unfinished"))


def test_the_log_counts_every_step_and_the_film_shows_the_fixed_prompts(
    workspace: Workspace, base: str
):
    run_id = queue(workspace, "finetune", base, SMALL_FINETUNE)
    execute(workspace, run_id, STAGES)
    folder = workspace.run_folder(run_id)
    metrics = read_metrics(folder)
    assert [line["step"] for line in metrics] == list(range(1, len(metrics) + 1))
    assert {"loss", "grad_norm", "learning_rate", "seconds"} <= metrics[0].keys()
    progress = read_progress(folder)
    assert progress is not None
    assert (progress.done, progress.total) == (len(metrics), len(metrics))
    film = read_film(folder)
    assert [frame["step"] for frame in film] == [0, len(metrics)]
    assert [each["prompt"] for each in film[0]["replies"]] == list(FILM_PROMPTS)
    assert all(each["log_prob_end"] < 0 for each in film[0]["replies"])


def test_it_learns(workspace: Workspace, base: str):
    """The same six demonstrations again and again: their loss falls."""
    config = SMALL_FINETUNE | {"fit": SMALL_FIT | {"num_epochs": 12, "learning_rate": 1e-2}}
    run_id = queue(workspace, "finetune", base, config)
    execute(workspace, run_id, STAGES)
    losses = [line["loss"] for line in read_metrics(workspace.run_folder(run_id))]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


@pytest.mark.parametrize("from_the_end", [2, 1, 0, -1])
def test_a_stop_loses_nothing_whenever_it_comes(workspace: Workspace, base: str, from_the_end: int):
    """Asked for before the end, at the last step, or after it and before the model is kept."""
    config = SMALL_FINETUNE | {"fit": SMALL_FIT | {"num_epochs": 3}}
    probe = queue(workspace, "finetune", base, config)
    unbroken = execute(workspace, probe, STAGES).outputs
    assert unbroken["model"] == "tiny-instruct-1"
    num = len(read_metrics(workspace.run_folder(probe)))
    assert num >= 3
    asked = num - from_the_end
    run_id = queue(workspace, "finetune", base, config)
    calls: list[bool] = []

    def leave() -> bool:
        calls.append(True)
        return len(calls) >= asked

    ended = execute(workspace, run_id, STAGES, should_leave=leave)
    assert (ended.status, ended.error) == ("stopped", None)
    folder = workspace.run_folder(run_id)
    done_before = len(read_metrics(folder))
    assert done_before == min(asked, num)
    (checkpoint,) = (folder / CHECKPOINT).iterdir()
    assert checkpoint.name == f"step-{done_before:06d}"
    with workspace.database.read() as session:
        assert [row.name for row in library.models(session)] == [base, "tiny-instruct-1"]

    resume(workspace, run_id)
    assert execute(workspace, run_id, STAGES).outputs == {
        **unbroken,
        "model": "tiny-instruct-1-2",
    }
    assert [line["step"] for line in read_metrics(folder)] == list(range(1, num + 1))
    assert [frame["step"] for frame in read_film(folder)] == [0, num]
    assert not (folder / CHECKPOINT).exists()


@pytest.mark.parametrize("method", ["layers", "full"])
def test_the_whole_model_can_be_trained(workspace: Workspace, base: str, method: str):
    name = done(workspace, "finetune", base, SMALL_FINETUNE | {"method": method})
    with workspace.database.read() as session:
        row = library.model(session, name)
    assert row.base is None
    folder = workspace.folder / row.folder
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "adapter_config.json").exists()
    engine = EngineRoom(workspace).have([name, base])
    prompt = Conversation.of(("user", "Hi"))
    settings = SamplingSettings(max_new_tokens=8)
    replies = engine.generate(
        [Request(prompt=prompt, model=each, settings=settings) for each in (name, base)]
    )
    assert [reply.model.name for reply in replies] == [name, base]


def test_an_adapter_trained_on_a_base_in_4_bits_is_like_any_other(workspace: Workspace, base: str):
    name, plain = (
        done(workspace, "finetune", base, SMALL_FINETUNE | {"method": method})
        for method in ("qlora", "lora")
    )
    with workspace.database.read() as session:
        row, other = (library.model(session, each) for each in (name, plain))
        said, others_said = (facts(session, each) for each in (row, other))
    assert said["base while it learned"] == "its layers in 4 bits (QLoRA)"
    assert "base while it learned" not in others_said
    assert (row.base, row.parent, row.kind) == (base, base, "policy")
    assert row.info["base_in_four_bits"] is True
    assert "base_in_four_bits" not in other.info
    for fact in ("num_parameters", "num_trained", "bytes"):
        assert row.info[fact] == other.info[fact]
    mine, others = (
        load_file(workspace.folder / each.folder / ADAPTER_FILE) for each in (row, other)
    )
    assert mine.keys() == others.keys()
    assert any(not torch.equal(mine[path], others[path]) for path in mine)
    # It replies on the base as it is, with its update folded in.
    engine = EngineRoom(workspace).have([name])
    request = Request(
        prompt=Conversation.of(("user", "Hi")),
        model=name,
        settings=SamplingSettings(max_new_tokens=8),
    )
    assert engine.generate([request])[0].model.sha256 == row.sha256


@pytest.mark.parametrize("family", ["chatml", "llama3", "transcript"])
def test_bases_of_every_family_can_be_trained_and_served(workspace: Workspace, family: Family):
    install_starter(workspace)
    name = done(workspace, "finetune", put_tiny(workspace, "other", family), SMALL_FINETUNE)
    with workspace.database.read() as session:
        assert library.model(session, name).chat_form == family
    engine = EngineRoom(workspace).have([name])
    prompt = Conversation.of(("user", "Hi"))
    seen = [piece.id for piece in engine.tokens(name, prompt)]
    row = engine.speaker(name).encoder.training_row(prompt.with_reply("Yes."))
    assert row.tokens[: len(seen)] == seen


def test_without_marker_rows_is_one_switch(workspace: Workspace, base: str):
    name = done(workspace, "finetune", base, SMALL_FINETUNE | {"train_marker_rows": False})
    config = json.loads((workspace.library / name / "adapter_config.json").read_text("utf-8"))
    assert "trainable_token_indices" not in config


def test_a_base_that_is_gone_ends_in_one_line(workspace: Workspace):
    ended = run(workspace, "finetune", "ghost", SMALL_FINETUNE)
    assert (ended.status, ended.error) == ("failed", "There is no model 'ghost'.")


def test_a_seeded_share_of_the_demonstrations_is_taken():
    config = FinetuneConfig(limit=4)
    some = training_rows(ENCODER, CHATS, config, seed=1)
    assert len(some.rows) == 4
    assert some == training_rows(ENCODER, CHATS, config, seed=1)
    assert some.sha256 == training_rows(ENCODER, CHATS, config, seed=1).sha256
    every = [ENCODER.training_row(chat) for chat in CHATS]
    assert all(each in every for each in some.rows)
    assert training_rows(ENCODER, CHATS, FinetuneConfig(), seed=1).rows == every


def test_the_seed_decides_which_demonstrations_are_taken_and_the_limit_only_how_many():
    four, five = FinetuneConfig(limit=4), FinetuneConfig(limit=5)
    taken = training_rows(ENCODER, CHATS, four, seed=1).rows
    assert training_rows(ENCODER, CHATS, five, seed=1).rows[:4] == taken
    assert training_rows(ENCODER, CHATS, four, seed=2).rows != taken


def test_too_long_a_request_leaves_nothing_to_learn():
    long = Conversation.of(("user", "word " * 50), ("assistant", "Yes."))
    config = FinetuneConfig(max_tokens=20)
    with pytest.raises(DataError, match="within 20 tokens"):
        training_rows(ENCODER, [long], config, seed=1)
    assert len(training_rows(ENCODER, [long, CHATS[0]], config, seed=1).rows) == 1


def test_what_loses_its_end_is_counted(workspace: Workspace, base: str):
    length = len(ENCODER.training_row(CHATS[0]).tokens)
    long = Conversation.of(("user", "Hi"), ("assistant", "word " * 50))
    lost = Conversation.of(("user", "word " * 50), ("assistant", "Yes."))
    found = training_rows(
        ENCODER, [CHATS[0], long, lost], FinetuneConfig(max_tokens=length), seed=1
    )
    # The first fits to the token, the second loses its end, of the third no reply is left.
    assert ([len(row.tokens) for row in found.rows], found.num_cut) == ([length, length], 2)
    whole = FinetuneConfig(max_tokens=length, too_long="leave_out")
    left = training_rows(ENCODER, [CHATS[0], long, lost], whole, seed=1)
    assert left.origins == [0]
    assert left.counts() == {"demonstrations": "1", "left_out": "2"}

    every = run(workspace, "finetune", base, SMALL_FINETUNE | {"max_tokens": 40})
    assert 1 <= int(every.outputs["cut"]) <= SMALL_FINETUNE["limit"], every.error


def test_a_run_goes_on_with_what_it_began_with_and_says_what_that_was(
    workspace: Workspace, base: str
):
    """Other data sets are chosen while it waits: they are for the next run."""
    config = SMALL_FINETUNE | {"fit": SMALL_FIT | {"num_epochs": 3}}
    unbroken = run(workspace, "finetune", base, config)
    run_id = queue(workspace, "finetune", base, config)
    assert execute(workspace, run_id, STAGES, should_leave=lambda: True).status == "stopped"
    folder = workspace.run_folder(run_id)
    num_before = len(read_metrics(folder))
    with workspace.database.write() as session:
        entry = DatasetEntry(name="mine", sha256="mine", kind="messages", source="a test")
        bodies = [ConversationExample(conversation=each).to_json() for each in CHATS]
        library.add_dataset(session, entry, bodies)
        Sources(demonstrations=("mine",)).keep(session)
        starter = library.dataset(session, STARTER_DEMONSTRATIONS)

    resume(workspace, run_id)
    ended = execute(workspace, run_id, STAGES)

    assert ended.outputs == {**unbroken.outputs, "model": "tiny-instruct-1-2"}
    assert ended.outputs["demonstrations"] == "6"
    # From its checkpoint, and with the very rows: the losses are those of an unbroken run.
    losses = [
        [line["loss"] for line in read_metrics(workspace.run_folder(each))]
        for each in (unbroken.id, run_id)
    ]
    assert losses[0] == losses[1]
    assert 1 <= num_before < len(losses[1])
    with workspace.database.read() as session:
        about = library.model(session, ended.outputs["model"]).info[LEARNED_FROM]
    assert about["sets"] == {STARTER_DEMONSTRATIONS: starter.sha256}
    assert (about["num"], about["num_mended"]) == (starter.num_rows, 0)
    assert json.loads((folder / "demonstrations.json").read_text("utf-8")) == about


def test_a_run_that_died_after_its_version_was_kept_makes_no_second_one(
    workspace: Workspace, base: str
):
    ended = run(workspace, "finetune", base, SMALL_FINETUNE)
    num_steps = len(read_metrics(workspace.run_folder(ended.id)))
    checkpoint = workspace.run_folder(ended.id) / CHECKPOINT
    checkpoint.mkdir()  # it may have died before this was deleted
    with workspace.database.write() as session:
        session.get_one(RunRow, ended.id).status = "failed"
    resume(workspace, ended.id)

    assert execute(workspace, ended.id, STAGES).outputs == {"model": "tiny-instruct-1"}

    assert len(read_metrics(workspace.run_folder(ended.id))) == num_steps
    assert not checkpoint.exists()
    with workspace.database.read() as session:
        assert [row.name for row in library.models(session)] == [base, "tiny-instruct-1"]


def test_what_was_kept_is_given_back_also_after_training_again(workspace: Workspace, base: str):
    """A stage that does not look first trains anew, but never makes a second version."""
    ended = run(workspace, "finetune", base, SMALL_FINETUNE)
    with workspace.database.read() as session:
        row = library.model(session, base)
    folder = workspace.run_folder(ended.id)
    context = Context(
        workspace=workspace, run=ended, folder=folder, log=RunLog(folder), should_stop=lambda: False
    )
    policy = Policy.load(workspace.folder / row.folder)
    lineage = Lineage(base=row, parent=row, number=1, num_trained=0, is_simulated=False)
    assert keep_policy(context, policy, lineage) == "tiny-instruct-1"


def test_a_run_without_demonstrations_says_where_to_get_some(workspace: Workspace):
    ended = run(workspace, "finetune", put_tiny(workspace), SMALL_FINETUNE)
    assert ended.status == "failed"
    with workspace.database.read() as session:
        assert runs.get(session, ended.id).error == ended.error


def test_a_mixture_is_seen_by_its_weights_and_recorded(workspace: Workspace, base: str):
    """8 of one set, 6 of another half as often: 8 + 3 rows in each of two epochs."""
    with workspace.database.write() as session:
        for name, chats in (("whole", CHATS[:8]), ("half", CHATS[4:])):
            entry = DatasetEntry(name=name, sha256=f"{name}-sha", kind="messages", source="a test")
            bodies = [ConversationExample(conversation=each).to_json() for each in chats]
            library.add_dataset(session, entry, bodies)
        run_id = runs.queue(
            session,
            stage="finetune",
            inputs={"model": base, "data": "whole,half:0.5"},
            config={"lora": {"rank": 2}, "fit": SMALL_FIT | {"num_epochs": 2}},
            seed=3,
        )

    ended = execute(workspace, run_id, STAGES)

    assert ended.outputs["demonstrations"] == "14", ended.error
    with workspace.database.read() as session:
        about = library.model(session, ended.outputs["model"]).info[LEARNED_FROM]
    assert about["sets"] == {"whole": "whole-sha", "half": "half-sha"}
    assert (about["num_of"], about["weights"]) == ({"whole": 8, "half": 6}, {"half": 0.5})
    learned = Demonstrations.kept(workspace.run_folder(run_id))
    assert learned is not None
    shares = learned.shares(range(14))
    assert [(list(each.positions), each.weight) for each in shares] == [
        (list(range(8)), 1.0),
        (list(range(8, 14)), 0.5),
        ([], 1.0),
    ]
    lengths = [len(ENCODER.training_row(each.conversation).tokens) for each in learned.examples]
    seen = sum(lengths[at] for epoch in (0, 1) for at in seen_in(shares, epoch, 3))
    assert read_tokens(workspace, run_id) == seen


def read_tokens(workspace: Workspace, run_id: str) -> int:
    """By the rate that its last progress tells."""
    found = read_progress(workspace.run_folder(run_id))
    assert found is not None
    assert found.rate is not None
    return round(found.rate * found.seconds_spent)


def test_weights_that_leave_nothing_to_see_are_refused(workspace: Workspace, base: str):
    with workspace.database.write() as session:
        entry = DatasetEntry(name="few", sha256="few", kind="messages", source="a test")
        bodies = [ConversationExample(conversation=each).to_json() for each in CHATS[:3]]
        library.add_dataset(session, entry, bodies)
        inputs = {"model": base, "data": "few:0.1"}
        config = {"fit": SMALL_FIT}
        run_id = runs.queue(session, stage="finetune", inputs=inputs, config=config, seed=3)
    assert "no demonstration is seen" in (execute(workspace, run_id, STAGES).error or "")


def test_only_the_last_reply_is_learned_if_so_wished():
    greeting = Conversation.of(("user", "Hi"), ("assistant", "Hello."), ("user", "And now?"))
    chat = greeting.with_reply("Bye.")
    every, last = (
        training_rows(ENCODER, [chat], FinetuneConfig(turns=turns), seed=1).rows[0]
        for turns in ("all", "last")
    )
    assert every == ENCODER.training_row(chat)
    assert last.tokens == every.tokens
    targets = [
        ENCODER.decode([token for token, on in zip(*row, strict=True) if on])
        for row in (every, last)
    ]
    assert targets == ["Hello.Bye.", "Bye."]
