"""The whole loop on the real base model, shortened: minutes, and a download of 240 MB."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.journeys.test_headless import METRICS
from torch import Tensor

from amenable.chat.packing import Limit
from amenable.chat.trees import Pack
from amenable.feedback.export import comparisons
from amenable.models.policy import Policy
from amenable.models.tree_attention import reads_trees
from amenable.pipeline import fitting
from amenable.pipeline.config import ExportConfig, PrepareConfig
from amenable.pipeline.engines import family_form
from amenable.pipeline.export import export_model
from amenable.pipeline.headless import run_headless
from amenable.pipeline.judged_rows import ReplyRows, training_pairs
from amenable.pipeline.progress import read_film
from amenable.pipeline.stages import STAGES
from amenable.records.run import Run
from amenable.store import library, settings
from amenable.store.workspace import Workspace
from amenable.training.preference import pair_trees

pytestmark = [pytest.mark.model, pytest.mark.timeout(1500)]
KNOBS: dict[str, dict[str, Any]] = {
    "finetune": {
        "limit": 300,
        "fit": {"num_epochs": 1, "tokens_per_step": 512, "tokens_per_batch": 512},
    },
    "sample": {"num_prompts": 24, "max_new_tokens": 32},
    "compare": {
        "num_prompts": 24,
        "max_new_tokens": 96,
        "num_text_tokens": 1500,
    },
}


@pytest.fixture
def _wanted() -> None:
    if "model" not in os.environ.get("AMENABLE_REQUIRE", ""):
        pytest.skip("downloads the base model; runs where AMENABLE_REQUIRE names model")


@pytest.mark.usefixtures("_wanted")
def test_the_base_model_learns_to_stop_and_leaves_as_it_is(workspace: Workspace, tmp_path: Path):
    with workspace.database.write() as session:
        settings.put(session, fitting.KEY, KNOBS)
    heard: list[Run] = []
    found = run_headless(
        workspace,
        STAGES,
        PrepareConfig(accept_licence=True),
        base="gemma-3-270m",
        on_run=heard.append,
    )

    rows = {row["metric"]: row["values"] for row in found["compare"]["rows"]}
    assert rows.keys() >= METRICS
    base, version_1, version_2 = (
        found["models"][role] for role in ("base", "policy_1", "policy_2")
    )
    assert rows["ends_by_itself"][base]["value"] < 0.3
    # A seventh of the training teaches most of stopping; the whole is for `make bench-start`.
    assert rows["ends_by_itself"][version_1]["value"] > 0.6
    assert rows["perplexity"][version_1]["value"] < 1.1 * rows["perplexity"][base]["value"]

    frames = read_film(workspace.run_folder(heard[1].id))
    first, last = (frame["replies"][1]["log_prob_end"] for frame in (frames[0], frames[-1]))
    assert first < -15 < -6 < last

    for form in ("merged", "adapter"):
        exported = export_model(workspace, version_2, tmp_path / form, ExportConfig(form=form))
        assert exported.same == exported.total, form

    _check_trees(workspace, base, version_1)


def _check_trees(workspace: Workspace, base: str, version: str) -> None:
    """Real pairs in one pass against every reply by itself, in fp32 and as it is trained here."""
    with workspace.database.read() as session:
        folders = [
            workspace.folder / library.model(session, name).folder for name in (base, version)
        ]
        judged = [each for each in comparisons(session, "improve") if each.teaches][:6]
    exact = Policy.load(folders[0], torch.float32)
    encoder = exact.encoder(family_form(folders[0]))
    pack = Pack.of(pair_trees(training_pairs(ReplyRows(encoder, Limit(512)), judged).pairs))
    with torch.no_grad():
        found: list[Tensor] = []
        for policy in (exact, Policy.load(folders[0])):
            policy.adapters.load("version", folders[1])
            assert reads_trees(policy.network)
            found.append(policy.scored(pack))
            hidden_NH = policy.hidden_apart(pack)
            found.append(policy.log_probs(hidden_NH[pack.sources_R], pack.targets_R))
    exact_R, apart_R, fast_R, fast_apart_R = found
    assert float((exact_R - apart_R).abs().max()) < 1e-4
    # 16 bits round by themselves; in one pass they may not round much worse.
    errors = [float((each - apart_R).abs().mean()) for each in (fast_R, fast_apart_R)]
    assert errors[0] < 1.3 * errors[1] + 1e-4
