"""The stage that makes a base model: a new one, or one that goes on learning, from plain text."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from amenable.chat.encode import Encoder, TokenRow
from amenable.chat.packing import windows
from amenable.chat.template import chat_form
from amenable.evaluation.perplexity import TextLogProb, TextsRead, texts_read
from amenable.generation.local import LocalEngine, Speaker
from amenable.models.merge import save_trained
from amenable.models.policy import INFO_FILE, Policy
from amenable.models.scratch import NetworkShape, learn_tokenizer, write_scratch
from amenable.pipeline.config import FitConfig, PretrainConfig
from amenable.pipeline.engines import load_policy
from amenable.pipeline.finetune import (
    CHECKPOINT,
    LEARNER,
    carry_licence,
    drop_checkpoint,
    kept_before,
    on_step,
)
from amenable.pipeline.frozen import corpus_of
from amenable.pipeline.knobs import read_config
from amenable.pipeline.prepare import LONGEST_BASE_NAME
from amenable.pipeline.pretrained import Pretrained
from amenable.pipeline.progress import Stopwatch
from amenable.pipeline.room import check_room
from amenable.pipeline.stage import Context
from amenable.pipeline.texts import CORPUS_FILE, Corpus
from amenable.records.errors import ConfigError, ModelError
from amenable.records.sample import ModelRef
from amenable.records.seeds import seed_for
from amenable.store import library
from amenable.store.artifacts import hash_folder, whole_folder, write_whole
from amenable.store.library import PRETRAINED_ON, ModelEntry
from amenable.store.tables import ModelRow
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.fit import Keeping, fit
from amenable.training.optimizer import MasterWeights

START = "start"
"""In the run's folder: a new model before its first step."""
PLAIN = "plain"
"""The chat form of a base: none."""
TEXTS_AT_ONCE = 16
LONGEST_LICENCE = 100


def pretrain(context: Context) -> dict[str, str]:
    """`inputs.data` names data sets, by commas; `inputs.model`, if any, is what goes on learning.

    The new base's name is the output.
    """
    if (kept := kept_before(context)) is not None:
        known = Pretrained.kept(context.folder)
        return {"model": kept, **(known.outputs() if known else {})}
    study = Study.of(context)
    policy = study.load()
    encoder = policy.encoder(PLAIN)
    study.check_fits(policy)
    found = study.begun(policy, encoder)
    policy.adapters.add_markers_only(LEARNER, ())
    check_room(policy, policy.trained_parameters(LEARNER, "full"), study.fit)
    weights = MasterWeights.of(policy, LEARNER, "full", study.fit.weight_decay)
    method = LikelihoodMethod(
        policy,
        text_rows(encoder, study.corpus, study.config.context),
        Budget(study.fit.tokens_per_batch, study.fit.tokens_per_step),
        context.run.seed,
    )
    keeping = Keeping(
        folder=context.folder / CHECKPOINT, key=study.key, should_stop=context.should_stop
    )
    fit(method, weights, study.fit, keeping, on_step(context, film=None))
    context.stop_here()
    found = replace(found, after=study.read_held_out(policy, encoder))
    found.keep(context.folder)
    return {"model": study.keep_base(policy, found), **found.outputs()}


def text_rows(encoder: Encoder, corpus: Corpus, context: int) -> list[TokenRow]:
    """Every token of every text is learned from, and that a text ends where it does."""
    # The only text goes on where its end is held out.
    rows = (encoder.text_row(text, has_end=not corpus.is_one_text) for text in corpus.learned)
    return [piece for row in rows for piece in windows(row, context)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a run was asked to learn, and from where it begins."""

    context: Context
    config: PretrainConfig
    corpus: Corpus
    base: ModelRow | None
    """What goes on learning; None for a new model."""

    @classmethod
    def of(cls, context: Context) -> "Study":
        """What cannot be done is refused here, before anything is learned."""
        config = read_config(PretrainConfig, context.run.config)
        inputs = context.run.inputs
        with context.workspace.database.read() as session:
            base = library.model(session, inputs["model"]) if "model" in inputs else None
            if base is not None and base.kind != "base":
                raise ModelError(
                    f"{base.name} is no base model: plain text would take from it what it has "
                    f"learned of replying. Go on from a base, and finetune that."
                )
            corpus = corpus_of(session, context.run, context.folder)
            study = cls(context=context, config=config, corpus=corpus, base=base)
            library.free_name(session, study.wanted_name)
        return study

    @property
    def wanted_name(self) -> str:
        """Short enough for its versions' names, which are made of it."""
        if self.config.name is not None and len(self.config.name) > LONGEST_BASE_NAME:
            must = f"have at most {LONGEST_BASE_NAME} letters"
            raise ConfigError("name", self.config.name, must=must)
        first = next(iter(self.corpus.sets))
        usual = f"{self.base.name}-on-{first}" if self.base else f"{first}-base"
        return self.config.name or usual[:LONGEST_BASE_NAME]

    @property
    def fit(self) -> FitConfig:
        """A base that goes on learning would lose what it knows by large steps."""
        fit = self.config.fit
        share = 1.0 if self.base is None else self.config.rate_share
        return replace(fit, learning_rate=share * fit.learning_rate)

    @property
    def key(self) -> str:
        """What a checkpoint belongs to: data sets never change, and neither does the seed."""
        start = None if self.base is None else self.base.sha256
        return json.dumps([start, self.corpus.sets, self.context.run.config], sort_keys=True)

    def load(self) -> Policy:
        """The model before its first step."""
        if self.base is not None:
            return load_policy(self.context.workspace.folder / self.base.folder, self.base)
        start = self.context.folder / START
        if not start.is_dir():
            watch = Stopwatch("Learning a tokenizer", 1, "tokenizers")
            self.context.log.progress(watch.at(0))
            asked, seed = self.config.shape, seed_for(self.context.run.seed, "weights")
            tokenizer = learn_tokenizer(self.corpus.learned, asked.vocabulary)
            shape = NetworkShape(
                hidden=asked.hidden,
                layers=asked.layers,
                heads=asked.heads,
                context=self.config.context,
            )
            with whole_folder(start) as unfinished:
                write_scratch(unfinished, tokenizer, shape, seed)
        return Policy.load(start)

    def check_fits(self, policy: Policy) -> None:
        if self.base is not None and self.config.context > policy.num_positions:
            must = f"be at most {policy.num_positions}, what {self.base.name} was made for"
            raise ConfigError("context", self.config.context, must=must)

    def begun(self, policy: Policy, encoder: Encoder) -> Pretrained:
        """What is known before the first step; an earlier attempt of this run has read it."""
        if (known := Pretrained.kept(self.context.folder)) is not None:
            return known
        vocabulary = encoder.tokenizer.get_vocab_size()
        wanted = self.config.shape.vocabulary if self.base is None else vocabulary
        found = Pretrained(
            sets=self.corpus.sets,
            num_texts=len(self.corpus.learned),
            num_bytes=sum(len(text.encode()) for text in self.corpus.learned),
            num_held_out=len(self.corpus.held_out),
            is_one_text=self.corpus.is_one_text,
            num_empty=self.corpus.num_empty,
            vocabulary=vocabulary,
            vocabulary_wanted=wanted,
            before=None if self.base is None else self.read_held_out(policy, encoder),
        )
        found.keep(self.context.folder)
        return found

    def read_held_out(self, policy: Policy, encoder: Encoder) -> TextsRead:
        """In windows as wide as those that are learned from."""
        ref = ModelRef(LEARNER, "" if self.base is None else self.base.sha256)
        engine = LocalEngine({LEARNER: Speaker(ref, policy, None, encoder)})
        texts = self.corpus.held_out
        watch = Stopwatch("Reading what was held out", len(texts), "texts")
        found: list[TextLogProb] = []
        self.context.log.progress(watch.at(0))
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            self.context.stop_here()
            some = texts[start : start + TEXTS_AT_ONCE]
            read = engine.text_log_probs(LEARNER, some, window=self.config.context)
            found += [
                TextLogProb(
                    key=f"text-{start + at:06}",
                    sum_log_prob=sum_log_prob,
                    num_tokens=num_tokens,
                    num_bytes=num_scored_bytes(encoder, text),
                )
                for at, (text, (sum_log_prob, num_tokens)) in enumerate(
                    zip(some, read, strict=True)
                )
            ]
            self.context.log.progress(watch.at(len(found)))
        return texts_read(found, self.context.run.seed)

    def keep_base(self, policy: Policy, found: Pretrained) -> str:
        """Save it into the library, whole or not at all, and give its name."""
        workspace = self.context.workspace
        with workspace.database.read() as session:
            name = library.free_name(session, self.wanted_name)
        folder = workspace.library / name
        family = str(Policy.read_info(policy.folder)["family_form"])
        with whole_folder(folder) as unfinished:
            save_trained(policy, LEARNER, unfinished, name, chat_form(PLAIN))
            info = {"family_form": family, "num_parameters": policy.num_parameters}
            write_whole(unfinished / INFO_FILE, (json.dumps(info, indent=1) + "\n").encode())
            self._lay_terms_beside(unfinished)
        entry = ModelEntry(
            name=name,
            sha256=hash_folder(folder),
            kind="base",
            chat_form=PLAIN,
            licence=self._licence,
            origin=f"pretrained here on {', '.join(found.sets)}",
            folder=folder.relative_to(workspace.folder).as_posix(),
            parent=None if self.base is None else self.base.name,
            run_id=self.context.run.id,
            is_simulated=self.base is not None and self.base.is_simulated,
            info={
                "num_parameters": policy.num_parameters,
                "num_trained": policy.num_parameters,
                "family_form": family,
                "architecture": str(policy.network.config.model_type),
                "bytes": sum(path.stat().st_size for path in folder.iterdir()),
                "terms": self._terms,
                PRETRAINED_ON: {"sets": dict(found.sets), "bytes": found.num_bytes},
            },
        )
        with workspace.database.write() as session:
            library.add_model(session, entry)
        drop_checkpoint(self.context)
        shutil.rmtree(self.context.folder / START, ignore_errors=True)
        (self.context.folder / CORPUS_FILE).unlink(missing_ok=True)
        return name

    @property
    def _licence(self) -> str:
        if self.base is not None:
            return self.base.licence
        said = ", ".join(dict.fromkeys(self.corpus.licences.values()))
        return said if len(said) <= LONGEST_LICENCE else "several, named in its terms"

    @property
    def _terms(self) -> str:
        sets = ", ".join(f"{name} ({licence})" for name, licence in self.corpus.licences.items())
        if self.base is not None:
            return f"{self.base.info.get('terms', '')} It went on learning here, from {sets}."
        return f"Trained here from nothing, on {sets}; the terms of these texts may bind it."

    def _lay_terms_beside(self, folder: Path) -> None:
        if self.base is None:
            text = f"{self._licence}\n\n{self._terms}\n"
            write_whole(folder / "LICENCE.txt", text.encode())
        else:
            carry_licence(self.context.workspace.folder / self.base.folder, folder)


def num_scored_bytes(encoder: Encoder, text: str) -> int:
    """Of the tokens that something stands before: where none begins a text, all but the first's."""
    num_bytes = len(text.encode())
    if encoder.begin is not None:
        return num_bytes
    return num_bytes - len(encoder.decode(encoder.encode_text(text)[:1]).encode())
