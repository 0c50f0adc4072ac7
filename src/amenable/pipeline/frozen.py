"""What a training run learns from: the same in every attempt of it, on whichever machine."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session

from amenable.pipeline.config import AlignConfig, PretrainConfig
from amenable.pipeline.judgements import Judgements, Wanted, data_sets, judgements
from amenable.pipeline.knobs import read_config
from amenable.pipeline.sources import Demonstrations, demonstrations, mixture_of
from amenable.pipeline.texts import Corpus
from amenable.records.run import Run
from amenable.store import library


class Frozen(Protocol):
    def keep(self, folder: Path) -> None:
        """Into the run's folder, where the next attempt finds it."""
        ...


def demonstrations_of(session: Session, run: Run, folder: Path) -> Demonstrations:
    """What is imported or mended after its beginning is for the next run."""
    words = run.inputs.get("data")
    mixture = mixture_of(words.split(",")) if words else None
    return Demonstrations.kept(folder) or demonstrations(session, mixture)


def judgements_of(session: Session, run: Run, folder: Path) -> Judgements:
    """A version learns from what was said of its own replies, a reward model from all."""
    wanted = Wanted(sets=data_sets(run.inputs))
    if run.stage == "align":
        wanted = Wanted(
            sets=wanted.sets,
            model_sha256=library.model(session, run.inputs["model"]).sha256,
            takes_ratings=read_config(AlignConfig, run.config).preference.loss == "kto",
        )
    return judgements(session, folder, wanted)


def corpus_of(session: Session, run: Run, folder: Path) -> Corpus:
    config = read_config(PretrainConfig, run.config)
    return Corpus.kept(folder) or Corpus.of(session, data_sets(run.inputs), config, run.seed)


LESSONS: Mapping[str, Callable[[Session, Run, Path], Frozen]] = {
    "pretrain": corpus_of,
    "finetune": demonstrations_of,
    "align": judgements_of,
    "reward": judgements_of,
}
"""By stage: those that need nothing else of their workspace but models."""


def freeze(session: Session, run: Run, folder: Path) -> None:
    """Keep in the run's folder all that its stage would read of the data of this workspace."""
    LESSONS[run.stage](session, run, folder).keep(folder)
