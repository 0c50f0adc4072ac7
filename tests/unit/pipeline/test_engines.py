"""The models of a workspace in one engine: each backbone once, and nobody disturbed by loading."""

import json
import shutil
import threading

import pytest
from tests.tiny import put_tiny, save_tiny
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, SMALL_FIT, done

from amenable.generation.engine import Request
from amenable.models.policy import INFO_FILE
from amenable.pipeline.engines import EngineRoom, open_engine
from amenable.pipeline.sources import install_starter
from amenable.records.conversation import Conversation
from amenable.records.errors import ModelError, NotFoundError
from amenable.records.sample import Sample, SamplingSettings
from amenable.store import library
from amenable.store.artifacts import hash_folder
from amenable.store.workspace import Workspace

V1, V2 = "tiny-instruct-1", "tiny-instruct-1-2"
LONGER = {"fit": SMALL_FIT | {"num_epochs": 4, "learning_rate": 1e-2}}


@pytest.fixture
def versions(workspace: Workspace) -> Workspace:
    """A base and two versions of it."""
    install_starter(workspace)
    base = put_tiny(workspace)
    assert [done(workspace, "finetune", base, SMALL_FINETUNE) for _ in range(2)] == [V1, V2]
    return workspace


def ask(model: str, num: int = 40) -> Request:
    prompt = Conversation.of(("user", "Hi"))
    return Request(prompt=prompt, model=model, settings=SamplingSettings(max_new_tokens=num))


def test_versions_share_the_backbone_of_their_base(versions: Workspace):
    engine = open_engine(versions, ["tiny", V1, V2, "tiny (helped)"])
    assert len({id(engine.speaker(name).policy) for name in (V1, V2, "tiny", "tiny (helped)")}) == 1
    assert engine.speaker("tiny").encoder.form.name == "plain"
    assert engine.speaker("tiny (helped)").encoder.form.name == "helped"
    assert engine.speaker(V1).encoder.form.name == "gemma"


def test_a_base_is_listed_under_both_of_its_names_without_loading(versions: Workspace):
    room = EngineRoom(versions)
    assert [ref.name for ref in room.listed()] == ["tiny", V1, V2, "tiny (helped)"]
    assert room.engine.models() == []


def test_a_model_that_comes_while_another_speaks_does_not_disturb_it(versions: Workspace):
    expected = open_engine(versions, [V1]).generate([ask(V1)])[0]
    for _ in range(3):
        room = EngineRoom(versions)
        engine = room.engine_of(V1)
        heard: list[str | Sample] = []
        begun = threading.Event()

        def speak(heard: list[str | Sample] = heard, begun: threading.Event = begun) -> None:
            for piece in engine.stream(ask(V1)):  # noqa: B023
                heard.append(piece)
                begun.set()

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert begun.wait(30)
        room.have([V2, "tiny"])
        speaker.join()
        assert heard[-1] == expected


def test_an_adapter_is_not_put_onto_a_backbone_within_a_step(versions: Workspace):
    room = EngineRoom(versions)
    room.have([V1])
    loaded = threading.Event()
    loader = threading.Thread(target=lambda: (room.have([V2]), loaded.set()))
    with room.engine.nobody_speaks():  # as a step holds it
        loader.start()
        assert not loaded.wait(0.3)
        speaker = room.engine.speaker(V1)
        assert speaker.policy.adapters.active == speaker.adapter
    loader.join()
    assert loaded.is_set()


def test_a_broken_version_stays_broken_until_it_is_mended(versions: Workspace):
    room = EngineRoom(versions)
    file = versions.library / V2 / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):  # the second time, too: nothing half loaded answers in its name
        with pytest.raises(ModelError, match="cannot be read"):
            room.have([V2])
    file.write_bytes(whole)
    assert room.have([V2]).generate([ask(V2, 3)])[0].num_tokens <= 3


def test_an_unknown_name_is_answered_with_the_known_ones(versions: Workspace):
    with pytest.raises(NotFoundError, match="tiny-instruct-1"):
        open_engine(versions, ["ghost"])


def say(room: EngineRoom, name: str) -> tuple[str, list[tuple[float, int]]]:
    """A reply, and how likely a text is: that tells models apart that say the same."""
    engine = room.have([name])
    reply = engine.generate([ask(name, 8)])[0].reply
    return reply, engine.text_log_probs(name, ["By the sea."])


def remove(workspace: Workspace, name: str) -> None:
    """As `amenable models remove` does."""
    with workspace.database.write() as session:
        folder = library.remove_model(session, name)
    shutil.rmtree(workspace.folder / folder)


def make_anew(workspace: Workspace) -> None:
    """Another version under the name of the first; the product gives no name twice."""
    name = done(workspace, "finetune", "tiny", SMALL_FINETUNE | LONGER)
    with workspace.database.write() as session:
        library.model(session, name).name = V1


def test_a_version_made_anew_under_its_name_speaks_with_its_new_weights(versions: Workspace):
    room = EngineRoom(versions)
    before, other = say(room, V1), say(room, V2)
    remove(versions, V1)
    make_anew(versions)

    after = say(room, V1)

    assert after == say(EngineRoom(versions), V1) != before
    assert say(room, V2) == other
    assert len(room.engine.speaker(V2).policy.adapters.shapes) == 2  # the old one is off


def test_what_was_removed_is_not_kept(versions: Workspace):
    room = EngineRoom(versions)
    bare, other = say(room, "tiny"), say(room, V2)
    say(room, V1)
    remove(versions, V1)
    with pytest.raises(NotFoundError, match=f"'{V1}'"):
        room.have([V1])
    assert {ref.name for ref in room.engine.models()} == {"tiny", V2}
    adapters = room.engine.speaker("tiny").policy.adapters
    assert list(adapters.shapes) == [room.engine.speaker(V2).adapter]
    assert [say(room, name) for name in ("tiny", V2, "tiny")] == [bare, other, bare]
    remove(versions, V2)
    assert say(room, "tiny") == bare
    assert not adapters.shapes


def test_two_versions_are_folded_side_by_side_and_the_base_stays_bare(versions: Workspace):
    names = ("tiny", V1, done(versions, "finetune", "tiny", SMALL_FINETUNE | LONGER))
    alone = [say(EngineRoom(versions), name) for name in names]
    room = EngineRoom(versions)
    for _ in range(2):  # also after each has spoken
        assert [say(room, name) for name in names] == alone
    assert len({str(said) for said in alone}) == 3


def test_a_base_made_anew_is_loaded_anew(versions: Workspace):
    room = EngineRoom(versions)
    room.have(["tiny", V1])
    before = room.engine.speaker("tiny").policy
    save_tiny(versions.library / "tiny", seed=2)
    with versions.database.write() as session:
        library.model(session, "tiny").sha256 = hash_folder(versions.library / "tiny")

    assert say(room, "tiny") == say(EngineRoom(versions), "tiny")

    assert room.engine.speaker("tiny").policy is not before
    with pytest.raises(ModelError, match="other weights than those of tiny"):
        room.have([V1])


def test_a_reply_under_way_does_not_go_on_with_another_version_of_its_name(versions: Workspace):
    room = EngineRoom(versions)
    stream = room.engine_of(V1).stream(ask(V1))
    next(stream)
    remove(versions, V1)
    make_anew(versions)
    say(room, V1)
    with pytest.raises(ModelError, match="is not loaded"):
        list(stream)


def test_an_adapter_of_another_base_is_refused(versions: Workspace):
    path = versions.library / V2 / INFO_FILE
    info = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(info | {"base_sha256": "f" * 64}))
    with pytest.raises(ModelError, match="other weights than those of tiny"):
        open_engine(versions, [V2])
