"""A guest in a comparison: asked over a real socket, beside a model of the library."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
from tests.tiny import CONTEXT, put_tiny
from tests.unit.serve.test_serve import KEY, SCRIPT, served

from amenable.generation.engine import Request
from amenable.pipeline.compare import compare
from amenable.pipeline.engines import GUEST_KEY, HouseAndGuests
from amenable.pipeline.stage import execute
from amenable.records.conversation import Conversation
from amenable.records.run import Run
from amenable.records.sample import SamplingSettings
from amenable.store import runs
from amenable.store.samples import samples_of
from amenable.store.workspace import Workspace

CONFIG = {"num_prompts": 4, "max_new_tokens": 8, "num_text_tokens": 300}


def run_compare(workspace: Workspace, *names: str) -> Run:
    with workspace.database.write() as session:
        run_id = runs.queue(
            session,
            stage="compare",
            inputs={"models": ",".join(names)},
            config=CONFIG,
            seed=7,
        )
    return execute(workspace, run_id, {"compare": compare})


def test_a_guest_is_compared_with_a_model_of_the_library(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(GUEST_KEY, KEY)
    base = put_tiny(workspace, "tiny")
    with served(SCRIPT) as url:
        guest = f"echo@{url}/v1"
        run = run_compare(workspace, base, guest)
        again = run_compare(workspace, base, guest)

    assert run.error is None
    result = json.loads((workspace.run_folder(run.id) / "result.json").read_text())
    rows = {row["metric"]: row["values"] for row in result["rows"]}
    assert rows["ends_by_itself"][guest]["value"] == 1.0
    assert base in rows["perplexity"]
    assert guest not in rows["perplexity"]  # nobody hands out likelihoods of plain text
    assert "cannot be hashed" in result["lineage"][guest]["facts"]["what it is"]
    with workspace.database.read() as session:
        assert len(samples_of(session, run.id)) == 3 * 4
        # What our own model said is known; an address may serve something else by now.
        assert {each.sample.model.name for each in samples_of(session, again.id)} == {guest}


def test_a_prompt_is_measured_against_our_own_context_and_never_a_guest_s(workspace: Workspace):
    base, guest = put_tiny(workspace, "tiny"), "echo@http://127.0.0.1:9"
    long = Conversation.of(("user", "word " * CONTEXT))
    with closing(HouseAndGuests(workspace, [base, guest])) as engine:
        asked = Request(prompt=long, model=base, settings=SamplingSettings())
        assert not engine.fits(asked)
        assert engine.fits(replace(asked, prompt=Conversation.of(("user", "Hi"))))
        assert engine.fits(replace(asked, model=guest))


def test_a_guest_that_is_not_at_home_ends_the_run_in_one_line(workspace: Workspace):
    base = put_tiny(workspace, "tiny")
    run = run_compare(workspace, base, "echo@http://127.0.0.1:9")
    assert run.status == "failed"
    assert run.error is not None
    assert "does not answer" in run.error
