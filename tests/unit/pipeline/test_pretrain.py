"""A base from plain text: what is learned, measured and kept, and what is refused before."""

import json
from typing import Any

import pytest
from tests.tiny import put_tiny, tiny_tokenizer

from amenable.chat.encode import Encoder
from amenable.chat.template import chat_form
from amenable.datasets.examples import TextExample
from amenable.models.policy import Policy
from amenable.pipeline.compare_sources import facts
from amenable.pipeline.config import PretrainConfig
from amenable.pipeline.engines import load_policy
from amenable.pipeline.finetune import CHECKPOINT
from amenable.pipeline.prepare import add_model
from amenable.pipeline.pretrain import START, num_scored_bytes, text_rows
from amenable.pipeline.pretrained import Pretrained
from amenable.pipeline.progress import read_metrics, read_progress
from amenable.pipeline.stage import execute, resume
from amenable.pipeline.stages import STAGES
from amenable.pipeline.texts import Corpus
from amenable.records.errors import ModelError
from amenable.records.run import Run
from amenable.starter.load import plain_texts
from amenable.store import library, runs
from amenable.store.library import DatasetEntry
from amenable.store.tables import ModelRow, RunRow
from amenable.store.workspace import Workspace

PAGES = plain_texts()[:8]
SMALL: dict[str, Any] = {
    "shape": {"vocabulary": 400, "hidden": 32, "layers": 1, "heads": 2},
    "context": 64,
    "held_out_share": 0.2,
    "fit": {"tokens_per_step": 1000, "tokens_per_batch": 1000, "learning_rate": 1e-2},
}


@pytest.fixture
def pages(workspace: Workspace) -> str:
    with workspace.database.write() as session:
        entry = DatasetEntry(
            name="pages", sha256="pages", kind="text", source="a test", licence="CC0-1.0"
        )
        library.add_dataset(session, entry, [each.to_json() for each in PAGES])
    return "pages"


def queued(
    workspace: Workspace, data: str, config: dict[str, Any] | None = None, **inputs: str
) -> str:
    with workspace.database.write() as session:
        return runs.queue(
            session,
            stage="pretrain",
            inputs={"data": data, **inputs},
            config=SMALL | (config or {}),
            seed=3,
        )


def ran(
    workspace: Workspace, data: str, config: dict[str, Any] | None = None, **inputs: str
) -> Run:
    return execute(workspace, queued(workspace, data, config, **inputs), STAGES)


def row_of(workspace: Workspace, name: str) -> ModelRow:
    with workspace.database.read() as session:
        return library.model(session, name)


def result_of(workspace: Workspace, run: Run) -> Pretrained:
    found = Pretrained.kept(workspace.run_folder(run.id))
    assert found is not None
    return found


def test_a_new_base_is_kept_with_all_that_is_known_of_it(workspace: Workspace, pages: str):
    ended = ran(workspace, pages)
    assert (ended.status, ended.outputs["model"]) == ("done", "pages-base"), ended.error
    row = row_of(workspace, "pages-base")
    assert (row.kind, row.chat_form, row.parent, row.base) == ("base", "plain", None, None)
    assert (row.licence, row.run_id) == ("CC0-1.0", ended.id)
    with workspace.database.read() as session:
        said = facts(session, row)
    assert (said["what it is"], said["plain text"]) == (
        "a base model: it continues text",
        "pages (sha256 pages)",
    )
    assert said["made by"].startswith(f"pretrained on plain text (run {ended.id}")
    folder = workspace.folder / row.folder
    assert (folder / "LICENCE.txt").read_text("utf-8").startswith("CC0-1.0\n\nTrained here")
    policy = load_policy(folder, row)
    assert policy.encoder("plain").marker_ids == ()
    assert len(policy.encoder("chatml").marker_ids) == 2
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    room = workspace.run_folder(ended.id)
    assert not (room / START).exists()
    assert not (room / CHECKPOINT).exists()


def test_held_out_texts_are_predicted_better_than_bytes_by_chance(workspace: Workspace, pages: str):
    ended = ran(workspace, pages, {"fit": SMALL["fit"] | {"num_epochs": 4}})
    found = result_of(workspace, ended)
    assert found.after is not None
    assert found.before is None
    held_out = [each.text for each in PAGES if each.text not in learned(workspace)]
    assert found.num_held_out == found.after.num_texts == len(held_out)
    assert found.num_texts + found.num_held_out == len(PAGES)
    assert found.after.num_bytes == sum(len(text.encode()) for text in held_out)
    assert 1 < found.after.bits_per_byte < 4  # 8 by chance
    progress = read_progress(workspace.run_folder(ended.id))
    assert progress is not None
    assert progress.share == 1.0
    losses = [line["loss"] for line in read_metrics(workspace.run_folder(ended.id))]
    assert losses[-1] < losses[0] - 1
    assert ended.outputs["bits_per_byte"].startswith(f"{found.after.bits_per_byte:.3f}")
    assert ended.outputs["texts"] == str(found.num_texts)


def learned(workspace: Workspace) -> set[str]:
    with workspace.database.read() as session:
        config = PretrainConfig(held_out_share=SMALL["held_out_share"])
        return set(Corpus.of(session, ["pages"], config, seed=3).learned)


def test_a_base_goes_on_learning_under_its_terms(workspace: Workspace, pages: str):
    base = put_tiny(workspace)
    (workspace.library / base / "LICENCE.txt").write_text("Some terms.", "utf-8")
    before = row_of(workspace, base)
    config = {"rate_share": 1.0, "name": "mine"}
    ended = ran(workspace, pages, config, model=base)
    assert (ended.status, ended.outputs["model"]) == ("done", "mine"), ended.error
    row = row_of(workspace, "mine")
    assert (row.kind, row.parent, row.base, row.licence) == ("base", base, None, before.licence)
    assert row.info["terms"].startswith("None. It went on learning here, from pages (CC0-1.0)")
    folder = workspace.folder / row.folder
    assert (folder / "LICENCE.txt").read_text("utf-8") == "Some terms."
    assert Policy.read_info(folder)["family_form"] == "gemma"
    found = result_of(workspace, ended)
    assert found.before is not None
    assert found.after is not None
    assert found.after.bits_per_byte < found.before.bits_per_byte
    assert {"bits_before", "bits_per_byte"} <= ended.outputs.keys()
    assert row_of(workspace, base).sha256 == before.sha256


def test_a_base_that_goes_on_takes_smaller_steps(workspace: Workspace, pages: str):
    base = put_tiny(workspace)
    ended = ran(workspace, pages, {"rate_share": 0.05}, model=base)
    assert ended.outputs["model"] == "tiny-on-pages"
    rates = [line["learning_rate"] for line in read_metrics(workspace.run_folder(ended.id))]
    assert max(rates) == pytest.approx(0.05 * 1e-2)


@pytest.mark.parametrize("from_the_end", [1, -1])
def test_a_stop_loses_nothing_whenever_it_comes(
    workspace: Workspace, pages: str, from_the_end: int
):
    """Before the end, or after it and before the base is kept."""
    unbroken = ran(workspace, pages)
    num = len(read_metrics(workspace.run_folder(unbroken.id)))
    run_id = queued(workspace, pages)
    calls: list[bool] = []

    def leave() -> bool:
        calls.append(True)
        return len(calls) >= num - from_the_end

    assert execute(workspace, run_id, STAGES, should_leave=leave).status == "stopped"
    resume(workspace, run_id)
    ended = execute(workspace, run_id, STAGES)
    assert ended.outputs == {**unbroken.outputs, "model": "pages-base-2"}
    assert row_of(workspace, "pages-base").sha256 == row_of(workspace, "pages-base-2").sha256


def test_a_run_that_died_after_its_base_was_kept_says_what_it_found(
    workspace: Workspace, pages: str
):
    ended = ran(workspace, pages)
    with workspace.database.write() as session:
        session.get_one(RunRow, ended.id).status = "failed"
    resume(workspace, ended.id)
    assert execute(workspace, ended.id, STAGES).outputs == ended.outputs


def test_little_text_gives_a_smaller_vocabulary_and_says_so(workspace: Workspace, pages: str):
    shape = SMALL["shape"] | {"vocabulary": 50_000}
    ended = ran(workspace, pages, {"shape": shape})
    found = result_of(workspace, ended)
    assert found.vocabulary < found.vocabulary_wanted == 50_000
    assert ended.outputs["vocabulary"] == f"{found.vocabulary} tokens: the texts give no more"


def test_of_a_single_text_the_end_is_measured_on(workspace: Workspace):
    with workspace.database.write() as session:
        entry = DatasetEntry(name="book", sha256="book", kind="text", source="a test")
        body = TextExample(text="\n\n".join(each.text for each in PAGES)).to_json()
        library.add_dataset(session, entry, [body, {"type": "text", "text": " "}])
    ended = ran(workspace, "book")
    found = result_of(workspace, ended)
    assert found.after is not None
    assert (found.num_texts, found.after.bits_per_byte_ends) == (1, None)
    assert (ended.outputs["held_out"], ended.outputs["empty"]) == ("the end of the text", "1")


@pytest.mark.parametrize(
    ("data", "config", "said"),
    [
        ("ghost", {}, "There is no data set 'ghost'"),
        ("", {}, "Name at least one data set"),
        ("pages", {"context": 2048}, "context is 2048, but must be at most 1024, what tiny was"),
        ("pages", {"name": "no good"}, "name is 'no good'"),
        ("pages", {"name": "n" * 61}, "have at most 60 letters"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    workspace: Workspace, pages: str, data: str, config: dict[str, Any], said: str
):
    ended = ran(workspace, data, config, model=put_tiny(workspace))
    assert ended.status == "failed"
    assert said in (ended.error or "")


def test_what_speaks_already_is_no_base(workspace: Workspace, pages: str):
    name = put_tiny(workspace)
    with workspace.database.write() as session:
        library.model(session, name).kind = "policy"
    assert "tiny is no base model" in (ran(workspace, pages, model=name).error or "")


def test_a_base_made_here_cannot_be_brought_again(workspace: Workspace, pages: str):
    name = ran(workspace, pages).outputs["model"]
    row = row_of(workspace, name)
    (workspace.folder / row.folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="it was trained here"):
        add_model(workspace, name, lambda _: None)
    with pytest.raises(ModelError) as caught:
        load_policy(workspace.folder / row.folder, row)
    assert "models add" not in str(caught.value)


def test_every_token_is_learned_from_and_where_a_text_ends():
    encoder = Encoder(tiny_tokenizer("gemma"), chat_form("plain"), begin=2, end_of_text=1)
    texts = [PAGES[0].text, "By the sea."]
    whole = [encoder.text_row(text).tokens for text in texts]
    assert all(tokens[0] == 2 and tokens[-1] == 1 for tokens in whole)

    def scored(*, is_one_text: bool) -> list[int]:
        corpus = Corpus(
            learned=texts, held_out=[], sets={}, licences={}, num_empty=0, is_one_text=is_one_text
        )
        rows = text_rows(encoder, corpus, 20)
        return [
            token
            for row in rows
            for token, is_target in zip(row.tokens, row.is_target, strict=True)
            if is_target
        ]

    assert scored(is_one_text=False) == [*whole[0][1:], *whole[1][1:]]
    # What goes on where its end is held out does not end.
    assert scored(is_one_text=True) == [*whole[0][1:-1], *whole[1][1:-1]]


def test_bytes_that_nothing_stands_before_are_not_counted():
    tokenizer = tiny_tokenizer("chatml")
    encoder = Encoder(tokenizer, chat_form("plain"), begin=None, end_of_text=0)
    text = "Über the sea"
    first = len(tokenizer.decode(encoder.encode_text(text)[:1]).encode())
    assert 1 <= first < 6
    assert num_scored_bytes(encoder, text) == len(text.encode()) - first
    begun = Encoder(tokenizer, chat_form("plain"), begin=0, end_of_text=0)
    assert num_scored_bytes(begun, text) == len(text.encode())
