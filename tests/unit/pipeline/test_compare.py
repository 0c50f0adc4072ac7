"""Comparing: scripted models from prompts to result and report, and the stage around it."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.evaluation.model_spec import ModelSpec, helped
from amenable.evaluation.perplexity import TextLogProb
from amenable.evaluation.task import EvaluationPrompt
from amenable.evaluation.win_rate import BlindChoice
from amenable.generation.engine import Request, ScriptedEngine, never
from amenable.pipeline.card import card_of
from amenable.pipeline.compare import compare
from amenable.pipeline.compare_sources import specs_of, training_of
from amenable.pipeline.comparison import Material, Votes, Watch, compare_models
from amenable.pipeline.config import CompareConfig
from amenable.pipeline.report import newest_comparison, read_result, write_report
from amenable.pipeline.sources import LEARNED_FROM
from amenable.pipeline.stage import Context, execute, resume
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError, NotFoundError
from amenable.records.measurement import Row
from amenable.records.run import Run
from amenable.records.sample import Sample
from amenable.reports.result import Result, Settings
from amenable.starter import load as starter
from amenable.store import library, runs
from amenable.store.library import ModelEntry
from amenable.store.samples import samples_of
from amenable.store.workspace import Workspace

LOOP = "go on and on " * 40
REPLIES: dict[str, Sequence[str]] = {
    "base": [LOOP],
    "base (helped)": [LOOP, LOOP, "seven words are a few too many"],
    "v1": ["two words", "two words", "seven words are a few too many"],
    "v2": ["two words"],
    "guest": ["one", "two words"],
}
BASE = ModelSpec(name="base", kind="base", form="plain")
V1 = ModelSpec(name="v1", kind="policy", form="gemma", parent="base")
V2 = ModelSpec(name="v2", kind="policy", form="gemma", parent="v1")
GUEST = ModelSpec(name="guest", kind="instruct", form="chatml")
ALL = [BASE, helped(BASE), V1, V2]
ABOUT = Settings(
    measured_at="2026-01-02 03:04 UTC",
    seed=7,
    num_prompts=24,
    prompts_origin="written here",
    prompts_licence="CC0-1.0",
    texts_origin="written here",
    decoding={},
)


@dataclass(frozen=True)
class Asked:
    key: str
    family: str
    conversation: Conversation
    checks: tuple[Check, ...] = (Check("max_words", 3),)


def asked(at: int) -> Asked:
    turns = Conversation.of(("user", f"Prompt {at}"))
    if at % 3 == 0:
        turns = Conversation.of(("user", "Hi"), ("assistant", "Hello."), ("user", f"Prompt {at}"))
    return Asked(f"p{at:02}", "plan" if at % 2 else "code", turns)


PROMPTS = [asked(at) for at in range(24)]


def read_texts(model: str) -> list[TextLogProb]:
    worse = {"base": 1.0, "v1": 1.05, "v2": 1.06, "guest": 1.2}[model]
    num_tokens = 12 if model == "guest" else 10
    return [
        TextLogProb(
            key=f"t{at}", sum_log_prob=-worse * (20 + at), num_tokens=num_tokens, num_bytes=40
        )
        for at in range(5)
    ]


def material(prompts: Sequence[EvaluationPrompt] = PROMPTS, votes: Votes | None = None) -> Material:
    return Material(
        prompts=prompts, text_log_probs=read_texts, settings=ABOUT, votes=votes or Votes()
    )


def compared(
    specs: Sequence[ModelSpec] = ALL,
    prompts: Sequence[EvaluationPrompt] = PROMPTS,
    votes: Votes | None = None,
) -> Result:
    config = CompareConfig()
    return compare_models(ScriptedEngine(REPLIES), specs, material(prompts, votes), config, Watch())


def row(result: Result, metric: str) -> Row:
    found = result.row(metric)
    assert found is not None
    return found


def test_all_metrics_of_the_comparison_are_there():
    found = compared()

    assert {each.metric for each in found.rows} >= {
        "perplexity", "bits_per_byte", "instructions_met", "ends_by_itself", "constraints_met",
        "keeps_to_the_last_turn", "repetition", "win_rate", "length",
        "constraints_met/plan", "constraints_met/code",
    }  # fmt: skip
    assert row(found, "win_rate").values["base"].value == 0.5
    assert row(found, "ends_by_itself").n == 24
    assert row(found, "keeps_to_the_last_turn").n == 8
    assert "base (helped)" not in row(found, "perplexity").values


def test_values_are_what_the_scripts_say():
    found = row(compared(), "constraints_met")

    assert found.values["base"].value == 0
    assert found.values["v2"].value == 1  # always two words of at most three
    difference = found.difference("v2", "base")
    assert difference is not None
    assert difference.value == 1
    assert difference.low < 1  # all of 24 is not certainty
    # 24 of 24 prompts differ: 2 / 2**24, times three differences in the row.
    assert difference.p == pytest.approx(3 * 2 / 2**24)


def test_each_model_stands_against_the_better_base_and_its_parent():
    found = row(compared(), "ends_by_itself")

    assert {(each.model, each.against) for each in found.differences} == {
        ("v1", "base (helped)"),
        ("v2", "base (helped)"),
        ("v2", "v1"),
    }


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_prompts_does_not_matter(lots: random.Random):
    shuffled = lots.sample(PROMPTS, len(PROMPTS))

    assert compared(prompts=shuffled) == compared()


def test_a_model_against_itself_has_no_difference():
    twin = replace(V2, parent="v1")
    engine = ScriptedEngine({**REPLIES, "v2": REPLIES["v1"]})
    same = {"v1": read_texts("v1"), "v2": read_texts("v1")}
    given_texts = replace(material(), text_log_probs=same.__getitem__)

    found = compare_models(engine, [V1, twin], given_texts, CompareConfig(), Watch())

    for each in found.rows:
        (difference,) = each.differences
        assert (difference.value, difference.p) == (0, 1), each.metric
        assert difference.could_be_chance
    assert "could be chance" in found.headline


def test_a_ready_made_model_that_wins_is_in_the_headline():
    found = compared([BASE, helped(BASE), V1, GUEST])

    assert "the ready-made guest did better, with 100 %" in found.headline
    assert "guest" in row(found, "perplexity").note
    assert set(row(found, "bits_per_byte").values) == {"base", "v1", "guest"}


def test_what_votes_taught_is_measured_from_version_to_version():
    choices = [
        BlindChoice(key=f"f{at}", models=("v1", "v2"), preferred="v2", is_simulated=True)
        for at in range(4)
    ]
    votes = Votes(num_judged=20, choices=choices, is_simulated=True)

    found = compared(votes=votes)

    taught = found.votes_taught
    assert taught is not None
    assert (taught.before, taught.after, taught.num_votes) == ("v1", "v2", 20)
    assert [each.metric for each in taught.rows] == [
        "length", "lists", "refusals", "ends_by_itself", "constraints_met", "repetition",
    ]  # fmt: skip
    assert "simulated judges" in taught.says
    assert found.simulated_people
    assert row(found, "win_rate_by_people").values["v2"].value == 1


def test_without_a_second_version_nothing_was_taught():
    assert compared([BASE, helped(BASE), V1]).votes_taught is None


def test_examples_show_every_model_and_why_they_were_chosen():
    examples = compared().examples

    assert examples[0].rule == "largest gain"
    assert all(set(example.replies) == {spec.name for spec in ALL} for example in examples)
    assert examples[0].checks == ("at most 3 words",)


def test_progress_is_told_and_every_sample_is_kept():
    told: list[tuple[str, int, int]] = []
    kept: list[str] = []

    def keep(prompt: EvaluationPrompt, sample: Sample) -> None:
        kept.append(f"{sample.model.name} {prompt.key}")

    def tell(doing: str, done: int, total: int) -> None:
        told.append((doing, done, total))

    watch = Watch(keep=keep, progress=tell)
    compare_models(ScriptedEngine(REPLIES), ALL, material(), CompareConfig(), watch)

    assert len(set(kept)) == len(kept) == 96
    assert ("v2 replies", 96, 96) in told


@pytest.mark.parametrize(("specs", "prompts"), [([], PROMPTS), (ALL, [])])
def test_nothing_to_compare_is_said_in_one_line(
    specs: Sequence[ModelSpec], prompts: Sequence[EvaluationPrompt]
):
    with pytest.raises(DataError):
        compared(specs, prompts)


def test_a_model_that_the_engine_does_not_have_is_named():
    with pytest.raises(NotFoundError, match="'nobody'"):
        compared([BASE, replace(V1, name="nobody")])


class ReadingScript(ScriptedEngine):
    """Scripted replies, made-up likelihoods, and a list of what it was asked."""

    def __init__(self, names: Sequence[str], on_request: Callable[[], None] = lambda: None) -> None:
        super().__init__({name: REPLIES["v1" if name == "one" else "base"] for name in names})
        self.num_asked = 0
        self.is_closed = False
        self.most_turns = 99
        self._on_request = on_request

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        self.num_asked += 1
        self._on_request()
        return super().stream(request, is_cancelled)

    def text_log_probs(self, model: str, texts: Sequence[str]) -> list[tuple[float, int]]:
        return [(-0.5 * len(text), len(text.split())) for text in texts]

    def close(self) -> None:
        self.is_closed = True

    def fits(self, request: Request) -> bool:
        return len(request.prompt.messages) < self.most_turns


@pytest.fixture
def library_of_two(workspace: Workspace) -> Workspace:
    with workspace.database.write() as session:
        finetuned = runs.queue(
            session,
            stage="finetune",
            inputs={"model": "plain"},
            config={"lora": {"rank": 4}},
            seed=1,
        )
        for name, kind, parent in (("plain", "base", None), ("one", "policy", "plain")):
            entry = ModelEntry(
                name=name,
                sha256=name.ljust(64, "0"),
                kind=kind,
                chat_form="plain" if kind == "base" else "gemma",
                licence="CC0-1.0",
                origin="made in a test",
                folder=f"library/{name}",
                parent=parent,
                run_id=finetuned if parent else None,
                info={"num_parameters": 1234567},
            )
            library.add_model(session, entry)
    folder = workspace.run_folder(finetuned)
    folder.mkdir(parents=True, exist_ok=True)
    steps = [json.dumps({"step": at, "seconds": at, "loss": 3 - at}) for at in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(steps) + "\n")
    film = {"step": 1, "replies": [{"prompt": "Hi", "reply": "Ho", "log_prob_end": -2.0}]}
    (folder / "film.jsonl").write_text(json.dumps(film) + "\n")
    return workspace


def queue(workspace: Workspace, models: str = "plain,one") -> str:
    with workspace.database.write() as session:
        return runs.queue(
            session,
            stage="compare",
            inputs={"models": models},
            config={"num_prompts": 18, "max_new_tokens": 20},
            seed=7,
        )


def run_it(workspace: Workspace, run_id: str, engine: ReadingScript) -> Run:
    def open_engine(_workspace: Workspace, _names: Sequence[str]) -> ReadingScript:
        return engine

    def compare_scripts(context: Context) -> dict[str, str]:
        return compare(context, open_engine)

    return execute(workspace, run_id, {"compare": compare_scripts})


NAMES = ["plain", "plain (helped)", "one"]


def test_the_stage_leaves_result_and_report_and_samples(library_of_two: Workspace):
    run_id = queue(library_of_two)

    engine = ReadingScript(NAMES)

    run = run_it(library_of_two, run_id, engine)

    assert engine.is_closed
    assert run.error is None
    assert run.status == "done"
    folder = library_of_two.run_folder(run_id)
    result = json.loads((folder / "result.json").read_text())
    assert [model["name"] for model in result["models"]] == NAMES
    assert {"rows", "headline", "examples", "lineage", "votes_taught", "simulated_people",
            "settings"} <= set(result)  # fmt: skip
    (first, *_) = result["rows"]
    assert {"aspect", "metric", "unit", "n", "values", "differences"} <= set(first)
    assert result["lineage"]["one"]["facts"]["knobs"] == "lora.rank 4"
    assert result["training"][0]["loss"][-1] == {"step": 2, "value": 1.0}
    assert result["training"][0]["film"][0]["log_p_end"] == -2.0
    assert "max_words" in result["settings"]["kinds_also_taught"]
    assert "<svg" in (folder / "report.html").read_text()
    with library_of_two.database.read() as session:
        assert len(samples_of(session, run_id)) == 3 * 18


def test_prompts_that_are_too_long_are_left_out_and_counted(library_of_two: Workspace):
    run_id = queue(library_of_two)
    engine = ReadingScript(NAMES)
    engine.most_turns = 2

    run_it(library_of_two, run_id, engine)

    result = json.loads((library_of_two.run_folder(run_id) / "result.json").read_text())
    assert "too long for one of the models were left out" in result["settings"]["prompts_origin"]


def test_a_run_that_was_stopped_asks_only_for_the_rest(library_of_two: Workspace):
    run_id = queue(library_of_two)
    engine = ReadingScript(NAMES)

    def interrupt() -> None:
        if engine.num_asked == 21:
            raise KeyboardInterrupt

    engine = ReadingScript(NAMES, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_it(library_of_two, run_id, engine)
    resume(library_of_two, run_id)
    again = ReadingScript(NAMES)
    run = run_it(library_of_two, run_id, again)

    assert run.status == "done"
    assert again.num_asked == 3 * 18 - 20


def test_a_report_is_made_anew_from_the_stored_result(library_of_two: Workspace):
    compared_run = queue(library_of_two)
    run_it(library_of_two, compared_run, ReadingScript(NAMES))
    page = library_of_two.run_folder(compared_run) / "report.html"
    before = page.read_text()
    page.write_text("lost")

    assert newest_comparison(library_of_two) == compared_run
    assert write_report(library_of_two.run_folder(compared_run)) == page
    assert page.read_text() == before


def test_the_kinds_taught_and_the_facts_are_those_of_the_version(library_of_two: Workspace):
    """Its run wrote down what it learned from; today's data sets, the starter's, are others."""
    sets = {"sets": {"mine": "abc", "theirs": "def"}, "weights": {"theirs": 0.5}}
    about = {"num": 1234, "num_mended": 5, "kinds": ["max_words"], **sets}
    with library_of_two.database.write() as session:
        row = library.model(session, "one")
        row.info = row.info | {LEARNED_FROM: about}
    run_id = queue(library_of_two)

    run_it(library_of_two, run_id, ReadingScript(NAMES))

    result = read_result(library_of_two.run_folder(run_id))
    assert result.settings.kinds_also_taught == ("max_words",)
    assert result.lineage["one"].facts["demonstrations"] == (
        "1,234 from mine (sha256 abc), theirs (sha256 def, 0.5 times an epoch); "
        "mended replies among them: 5"
    )


def test_a_later_version_was_taught_what_its_parent_was(library_of_two: Workspace):
    about = {"num": 1, "num_mended": 0, "sets": {}, "kinds": ["max_words"]}
    with library_of_two.database.write() as session:
        one = library.model(session, "one")
        one.info = one.info | {LEARNED_FROM: about}
        entry = ModelEntry(name="two", sha256="2" * 64, kind="policy", chat_form="gemma",
                           licence="CC0-1.0", origin="", folder="library/two", parent="one",
                           run_id=one.run_id)  # fmt: skip
        library.add_model(session, entry)
        (spec,) = specs_of(session, ["two"])
    assert [each.kinds_taught for each in training_of(library_of_two, [spec])] == [("max_words",)]


def test_a_card_has_the_figures_of_these_very_weights_and_lineage_in_any_case(
    library_of_two: Workspace,
):
    before = card_of(library_of_two, "one")
    run_id = queue(library_of_two)
    run_it(library_of_two, run_id, ReadingScript(NAMES))
    measured = read_result(library_of_two.run_folder(run_id)).model("one")
    with library_of_two.database.write() as session:
        library.model(session, "one").sha256 = measured.sha256
    after = card_of(library_of_two, "one")

    for card in (before, after):
        assert card.startswith("# one\n")
        assert "## From: plain" in card
        assert "**licence:** CC0-1.0" in card
    assert "no comparison has these weights" in before
    assert "| measure |" in after

    with library_of_two.database.write() as session:
        library.model(session, "one").sha256 = "other weights under the same name"
    assert "no comparison has these weights" in card_of(library_of_two, "one")


def test_a_card_tells_no_folder_of_this_machine(library_of_two: Workspace, tmp_path: Path):
    with library_of_two.database.write() as session:
        library.model(session, "plain").origin = str(tmp_path / "my-base")
    card = card_of(library_of_two, "one")
    assert str(tmp_path) not in card
    assert "**origin:** a file or folder named my-base" in card


def test_a_result_that_is_gone_costs_the_card_its_figures_and_no_more(library_of_two: Workspace):
    run_id = queue(library_of_two)
    run_it(library_of_two, run_id, ReadingScript(NAMES))
    path = library_of_two.run_folder(run_id) / "result.json"
    with library_of_two.database.write() as session:
        measured = read_result(path.parent).model("one")
        library.model(session, "one").sha256 = measured.sha256
    for spoil in (lambda: path.write_text("{}"), path.unlink):
        spoil()
        assert "no comparison has these weights" in card_of(library_of_two, "one")


def test_without_a_comparison_there_is_nothing_to_report(library_of_two: Workspace, tmp_path: Path):
    with pytest.raises(NotFoundError):
        newest_comparison(library_of_two)
    with pytest.raises(NotFoundError):
        read_result(tmp_path)
    with pytest.raises(NotFoundError):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("models", "said"), [("", "Name the models"), ("nobody", "no model 'nobody'")]
)
def test_models_that_are_not_there_end_the_run_in_one_line(
    library_of_two: Workspace, models: str, said: str
):
    run = run_it(library_of_two, queue(library_of_two, models), ReadingScript(NAMES))

    assert run.status == "failed"
    assert said in (run.error or "")


def test_starter_prompts_are_all_checkable():
    assert all(prompt.checks for prompt in starter.evaluation_prompts())
