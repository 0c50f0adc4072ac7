"""Hand a model to other programs, load it back, and check that it still says the same."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from amenable.chat.template import chat_form
from amenable.generation.engine import Request
from amenable.generation.local import LocalEngine, Speaker
from amenable.models.merge import save_merged, save_speech
from amenable.models.policy import INFO_FILE, Policy
from amenable.pipeline.card import CARD_FILE, card_of
from amenable.pipeline.config import ExportConfig
from amenable.pipeline.engines import open_engine
from amenable.pipeline.finetune import FILM_PROMPTS, FILM_SETTINGS
from amenable.records.conversation import Conversation
from amenable.records.errors import ConflictError, ModelError
from amenable.records.sample import ModelRef
from amenable.store import library
from amenable.store.artifacts import write_whole
from amenable.store.workspace import Workspace

BACK = "loaded back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """How many of the fixed prompts got the same greedy reply from what was written."""

    folder: Path
    form: str
    same: int
    total: int

    def to_json(self) -> dict[str, object]:
        return {
            "folder": str(self.folder),
            "form": self.form,
            "same_replies": self.same,
            "replies": self.total,
        }


def export_model(workspace: Workspace, name: str, folder: Path, config: ExportConfig) -> Exported:
    """Write `name` into a new folder, and load it back from there."""
    if folder.exists():
        raise ConflictError(f"{folder} is there already; name a new folder.")
    with workspace.database.read() as session:
        row = library.speaker(session, name)
    engine = open_engine(workspace, [name])
    speaker = engine.speaker(name)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    form = chat_form(speaker.encoder.form.name)
    if config.form == "adapter":
        if speaker.adapter is None:
            raise ModelError(f"{name} has no adapter of its own; export it merged.")
        speaker.policy.adapters.save(speaker.adapter, unfinished, _base_path(workspace, row.base))
        save_speech(speaker.policy, unfinished, form)
    else:
        save_merged(speaker.policy, speaker.adapter, unfinished, form)
    for file in ("LICENCE.txt", INFO_FILE):
        source = workspace.folder / row.folder / file
        if source.is_file():
            shutil.copyfile(source, unfinished / file)
    write_whole(unfinished / CARD_FILE, card_of(workspace, name).encode())
    unfinished.rename(folder)
    before = _replies(engine, name)
    after = _replies(_load_back(workspace, row.base, folder, speaker), BACK)
    same = sum(left == right for left, right in zip(before, after, strict=True))
    return Exported(folder=folder, form=config.form, same=same, total=len(before))


def _base_path(workspace: Workspace, base: str | None) -> str:
    """Where PEFT finds the base: our copy of it, since the hub may be out of reach."""
    with workspace.database.read() as session:
        row = library.model(session, base or "")
    return str((workspace.folder / row.folder).resolve())


def _load_back(
    workspace: Workspace, base: str | None, folder: Path, speaker: Speaker
) -> LocalEngine:
    ref = ModelRef(BACK, speaker.ref.sha256)
    if (folder / "adapter_config.json").is_file():
        policy = Policy.load(Path(_base_path(workspace, base)))
        policy.adapters.load(BACK, folder)
        policy.adapters.fold(BACK)
        return LocalEngine({BACK: Speaker(ref, policy, BACK, speaker.encoder)})
    policy = Policy.load(folder)
    encoder = policy.encoder(speaker.encoder.form.name)
    return LocalEngine({BACK: Speaker(ref, policy, None, encoder)})


def _replies(engine: LocalEngine, name: str) -> list[str]:
    """One prompt at a time: a batch's padding changes roundings."""
    return [
        sample.reply
        for text in FILM_PROMPTS
        for sample in engine.generate(
            [Request(prompt=Conversation.of(("user", text)), model=name, settings=FILM_SETTINGS)]
        )
    ]
