"""What a comparison needs out of the workspace: models and lineage, prompts, texts, votes, runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from amenable.chat.template import HELPED_EXAMPLES
from amenable.datasets.examples import PromptExample, TextExample
from amenable.evaluation.model_spec import ModelSpec, SpecKind, helped, newest_policy
from amenable.evaluation.win_rate import BlindChoice
from amenable.feedback import export
from amenable.pipeline.judgements import JUDGED_SETS
from amenable.pipeline.progress import read_film, read_metrics
from amenable.pipeline.sources import (
    LEARNED_FROM,
    STARTER_PROMPTS,
    Sources,
    exam_prompts,
    training_conversations,
)
from amenable.records.guest import Guest
from amenable.records.run import Run
from amenable.reports.result import CurvePoint, Frame, Lineage, Training
from amenable.starter import load as starter
from amenable.starter.load import STARTER_LICENCE
from amenable.store import library, runs
from amenable.store.library import IN_FOUR_BITS, PRETRAINED_ON
from amenable.store.tables import ModelRow
from amenable.store.workspace import Workspace

KINDS: Mapping[str, SpecKind] = {"base": "base", "policy": "policy"}
STAGES = {
    "pretrain": "pretrained on plain text",
    "finetune": "finetuned on demonstrations",
    "align": "aligned with people's comparisons",
}
EACH_ONCE: Mapping[str, float] = {}
"""The weights of data sets that an epoch sees once."""
BYTES_PER_TOKEN = 5
"""A little more than tokenizers reach on plain English, so that a token budget is filled."""
MOST_POINTS = 300
"""More points than a printed curve has room for teach nobody anything."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts with where they come from, in words."""

    prompts: Sequence[PromptExample | starter.StarterPrompt]
    origin: str
    licence: str


def specs_of(session: Session, names: Iterable[str]) -> list[ModelSpec]:
    """In the order given; a base as it is and, right after, helped; guests as they are."""
    found: dict[str, ModelSpec] = {}
    for name in names:
        if (guest := Guest.parse(name)) is not None:
            found[name] = _guest_spec(name, guest)
            continue
        row = library.speaker(session, name)
        spec = ModelSpec(
            name=row.name,
            kind=KINDS.get(row.kind, "instruct"),
            form=row.chat_form,
            parent=row.parent,
            is_simulated=row.is_simulated,
            facts=facts(session, row),
        )
        found[spec.name] = spec
        if spec.kind == "base":
            found[helped(spec).name] = helped(spec)
    return list(found.values())


def _guest_spec(name: str, guest: Guest) -> ModelSpec:
    said = {
        "what it is": "a guest: others serve it, so its weights cannot be hashed from here",
        "origin": guest.address,
    }
    return ModelSpec(name=name, kind="instruct", form="", facts=said)


def facts(session: Session, row: ModelRow) -> dict[str, str]:
    """A model's lineage in words."""
    said = {
        "what it is": {
            "base": "a base model: it continues text",
            "policy": "trained here",
        }.get(row.kind, "a ready-made instruct model of others"),
        "origin": row.origin,
        "licence": row.licence,
        "terms": str(row.info.get("terms", "")),
        "parameters": _count(row.info.get("num_parameters")),
        "chat form": row.chat_form,
        "content hash (sha256)": row.sha256,
    }
    if row.kind == "policy":
        said["parameters trained"] = _count(row.info.get("num_trained"))
        said["people"] = "simulated judges' votes went into it" if row.is_simulated else ""
        said["demonstrations"] = _learned_from(row.info.get(LEARNED_FROM))
        said["imported judgements"] = _sets(row.info.get(JUDGED_SETS, {}))
    if IN_FOUR_BITS in row.info:
        said["base while it learned"] = "its layers in 4 bits (QLoRA)"
    if PRETRAINED_ON in row.info:
        said["plain text"] = _sets(row.info[PRETRAINED_ON]["sets"])
    if library.is_made_here(row) and row.run_id is not None:
        said |= _run_facts(runs.get(session, row.run_id))
    return {about: fact for about, fact in said.items() if fact}


def _learned_from(about: Mapping[str, Any] | None) -> str:
    """Empty where it learned from none, or was made before runs wrote them down."""
    if about is None:
        return ""
    sets = _sets(about["sets"], about.get("weights", {}))
    return f"{about['num']:,} from {sets}; mended replies among them: {about['num_mended']:,}"


def _sets(sets: Mapping[str, str], weights: Mapping[str, float] = EACH_ONCE) -> str:
    often = {name: f", {weight:g} times an epoch" for name, weight in weights.items()}
    return ", ".join(
        f"{name} (sha256 {sha256}{often.get(name, '')})" for name, sha256 in sets.items()
    )


def lineage_of(session: Session, name: str) -> dict[str, Lineage]:
    """The model and all that it comes from, with today's facts of each."""
    found: dict[str, Lineage] = {}
    wanted: str | None = name
    while wanted is not None:
        row = library.model(session, wanted)
        kind = KINDS.get(row.kind, "instruct")
        found[wanted] = Lineage(parent=row.parent, kind=kind, facts=facts(session, row))
        wanted = row.parent
    return found


def prompts_of(session: Session) -> Prompts:
    """The sealed fifth of people's own prompts, and the starter set's unless it was left out."""
    own = exam_prompts(session)
    uses_starter = STARTER_PROMPTS in Sources.of(session).prompts or not own
    ready = list(starter.evaluation_prompts()) if uses_starter else []
    keyed = _with_own_keys(own, taken={prompt.key for prompt in ready})
    origin = [f"{len(own)} sealed prompts of your own, which no training run reads"] if own else []
    if ready:
        origin.append(
            f"{len(ready)} prompts of the starter set, written for Amenable and never trained on"
        )
    licence = "; ".join(["yours"] * bool(own) + [STARTER_LICENCE] * bool(ready))
    return Prompts([*keyed, *ready], " and ".join(origin), licence)


def _with_own_keys(prompts: Sequence[PromptExample], taken: set[str]) -> list[PromptExample]:
    """Each under a key of its own: two of one key would be given the same reply."""
    found: dict[str, PromptExample] = {}
    for at, prompt in enumerate(prompts, start=1):
        key = prompt.key or f"exam-{at}"
        key = key if key not in found and key not in taken else f"{key}-exam-{at}"
        found[key] = replace(prompt, key=key)
    return list(found.values())


def plain_texts(num_tokens: int) -> list[TextExample]:
    """Whole texts up to about so many tokens, at least two."""
    chosen: list[TextExample] = []
    num_bytes = 0
    for text in starter.plain_texts():
        if num_bytes >= num_tokens * BYTES_PER_TOKEN and len(chosen) >= 2:
            break
        chosen.append(text)
        num_bytes += len(text.text.encode())
    return chosen


def kinds_taught(session: Session) -> set[str]:
    """Kinds of check that today's demonstrations ask for: a version's own may be others."""
    return {check.kind for example in training_conversations(session) for check in example.checks}


def num_pairs_learned(session: Session, specs: Sequence[ModelSpec]) -> int:
    """Judged pairs that the newest version learned from, as the run that made it wrote down."""
    newest = newest_policy(specs)
    run_id = library.model(session, newest.name).run_id if newest else None
    written = runs.get(session, run_id).outputs.get("comparisons", "") if run_id else ""
    return int(written) if written.isdigit() else 0


def blind_choices(session: Session, specs: Sequence[ModelSpec]) -> list[BlindChoice]:
    """What people chose between two of these models."""
    names = {spec.name for spec in specs}
    return [
        BlindChoice(
            key=pair.prompt_key,
            models=(pair.left_model, pair.right_model),
            preferred=pair.preferred_model,
            is_simulated=pair.is_simulated,
        )
        for pair in export.comparisons(session, "proof")
        if {pair.left_model, pair.right_model} <= names
    ]


def training_of(workspace: Workspace, specs: Sequence[ModelSpec]) -> list[Training]:
    """The runs that made these versions: their loss, thinned, and their film strip."""
    found: list[Training] = []
    for spec in specs:
        if spec.kind != "policy":
            continue
        with workspace.database.read() as session:
            row = library.model(session, spec.name)
            run = runs.get(session, row.run_id) if row.run_id else None
            kinds = _kinds_written(session, row)
        if run is not None:
            folder = workspace.run_folder(run.id)
            found.append(
                Training(
                    model=spec.name,
                    stage=run.stage,
                    run_id=run.id,
                    loss=_points(read_metrics(folder)),
                    film=tuple(_frames(read_film(folder))),
                    kinds_taught=kinds,
                )
            )
    return found


def _kinds_written(session: Session, row: ModelRow) -> tuple[str, ...] | None:
    """Kinds of check that its demonstrations asked for, or those of the version it comes from."""
    while LEARNED_FROM not in row.info and row.parent is not None:
        row = library.model(session, row.parent)
    about = row.info.get(LEARNED_FROM)
    return None if about is None else tuple(about["kinds"])


def stop_texts(specs: Sequence[ModelSpec]) -> dict[str, tuple[str, ...]]:
    return {spec.name: spec.stop_texts for spec in specs if spec.stop_texts}


def help_given() -> str:
    """The examples that the helped base sees, word for word."""
    return " · ".join(f"{request} → {reply}" for request, reply in HELPED_EXAMPLES)


def _run_facts(run: Run) -> dict[str, str]:
    minutes = f"{run.seconds / 60:.1f} minutes" if run.seconds else ""
    memory = f"{run.peak_memory_bytes / 1e9:.1f} GB at most" if run.peak_memory_bytes else ""
    return {
        "made by": f"{STAGES.get(run.stage, run.stage)} (run {run.id}, seed {run.seed})",
        "knobs": ", ".join(f"{name} {value}" for name, value in _flat(run.config)),
        "time and memory": ", ".join(part for part in (minutes, memory) if part),
        "versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        found += (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else [(f"{prefix}{name}".replace("_", " "), value)]
        )
    return found


def _count(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else ""


def _points(lines: Sequence[Mapping[str, Any]]) -> tuple[CurvePoint, ...]:
    found = [
        CurvePoint(step=int(line["step"]), value=float(line["loss"]))
        for line in lines
        if isinstance(line.get("loss"), int | float)
    ]
    stride = -(-len(found) // MOST_POINTS) or 1
    return (*found[:-1:stride], *found[-1:])


def _frames(lines: Sequence[Mapping[str, Any]]) -> Iterable[Frame]:
    for line in lines:
        for reply in line.get("replies", [line]):
            yield Frame(
                step=int(line["step"]),
                prompt=str(reply["prompt"]),
                reply=str(reply["reply"]),
                log_p_end=reply.get("log_prob_end"),
            )
