"""Training by hand from its page: a form of every knob, runs as asked for, mistakes kept."""

import re
from collections.abc import Generator
from dataclasses import asdict, dataclass

import pytest
from starlette.testclient import TestClient
from tests.journeys.seed import Stage
from tests.journeys.texts import BASE, V1
from tests.journeys.web import guest

from amenable.apps.web.routes import train
from amenable.pipeline import packages
from amenable.pipeline.begin import METHODS, Method
from amenable.pipeline.config import (
    STAGE_CONFIGS,
    AlignConfig,
    FinetuneConfig,
    FitConfig,
    LoraConfig,
    PreferenceConfig,
    recorded,
)
from amenable.pipeline.form import knobs, typed
from amenable.pipeline.sources import STARTER_DEMONSTRATIONS, STARTER_PROMPTS
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.workspace import Workspace

Fields = dict[str, str | list[str]]
DEFAULTS: dict[str, FinetuneConfig | AlignConfig] = {
    "finetune": FinetuneConfig(),
    "align": AlignConfig(),
}


def form_of(config: FinetuneConfig | AlignConfig, model: str) -> Fields:
    """As a browser sends it."""
    return {"model": model, "seed": "7", **{f"config.{k}": v for k, v in typed(config).items()}}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Generator[Workspace]:
    """For tests that begin nothing."""
    with Workspace.open(tmp_path_factory.mktemp("shelf") / "workspace") as workspace:
        yield workspace


@pytest.fixture(scope="module")
def reader(shelf: Workspace) -> Generator[TestClient]:
    with guest(shelf, "judged") as client:
        yield client


def text(client: TestClient, path: str) -> str:
    reply = client.get(path)
    assert reply.status_code == 200, reply.text
    return reply.text


def queued(workspace: Workspace) -> list[Run]:
    with workspace.database.read() as session:
        return runs.list_runs(session, statuses=("queued",))


def begun(client: TestClient, workspace: Workspace, stage: str, fields: Fields) -> Run:
    reply = client.post(f"/train/{stage}", data=fields, follow_redirects=False)
    assert reply.status_code == 303, reply.text
    (run,) = queued(workspace)
    assert reply.headers["location"] == f"/runs/{run.id}"
    return run


def refused(client: TestClient, workspace: Workspace, stage: str, fields: Fields) -> str:
    reply = client.post(f"/train/{stage}", data=fields)
    assert reply.status_code == 422, reply.text
    assert queued(workspace) == []
    return reply.text


def test_all_methods_stand_on_one_page_that_runs_and_models_lead_to(reader: TestClient):
    page = text(reader, "/train")
    assert 'href="/train"' in text(reader, "/runs")
    models = text(reader, "/models")
    for stage, method in METHODS.items():
        assert f'<a href="/train/{stage}">{method.title}</a>' in page
    assert f'href="/train/finetune?model={BASE}"' in models
    assert f'href="/train/align?model={V1}"' in models
    assert f'href="/train/align?model={BASE}"' not in models


@pytest.mark.parametrize("stage", list(DEFAULTS))
def test_the_form_has_every_knob_with_its_default_and_its_sentence(reader: TestClient, stage: str):
    page = text(reader, f"/train/{stage}")
    assert page.count('class="button filled') == 1
    for knob in knobs(STAGE_CONFIGS[stage]).knobs():
        name = f"config.{knob.name}"
        assert page.count(f'name="{name}"') == 1
        assert f'id="{name.replace(".", "-")}-help"' in page
        if knob.entry in ("integer", "number"):
            value = typed(DEFAULTS[stage])[knob.name]
            assert re.search(rf'type="number"[^>]* name="{name}" value="{value}"', page)


def test_every_field_has_a_label_and_what_describes_it_is_there(reader: TestClient):
    bad = form_of(FinetuneConfig(), BASE) | {"config.max_tokens": "1", "seed": "x"}
    for page in (
        text(reader, "/train/finetune"),
        text(reader, "/train/align"),
        reader.post("/train/finetune", data=bad).text,
    ):
        ids = re.findall(r' id="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        main = page.partition("<form")[2]
        for field in re.findall(r'<(?:input|select)[^>]* id="([^"]+)"', main):
            assert f'<label for="{field}"' in main or f'class="choice" for="{field}"' in main
        for described in re.findall(r'aria-describedby="([^"]+)"', main):
            assert set(described.split()) <= set(ids)
        for link in re.findall(r'href="#([^"]+)"', page):
            assert link in ids


def test_what_was_chosen_is_what_the_run_begins_with(workspace: Workspace):
    config = FinetuneConfig(
        method="layers",
        train_marker_rows=False,
        lora=LoraConfig(rank=4, alpha=8.5),
        fit=FitConfig(num_epochs=2, learning_rate=3e-5),
        limit=40,
    )
    with guest(workspace, "judged") as client:
        run = begun(client, workspace, "finetune", form_of(config, BASE) | {"seed": "11"})

    assert (run.stage, run.inputs, run.seed) == ("finetune", {"model": BASE}, 11)
    assert run.config == asdict(config)


def test_improving_by_another_loss_records_what_is_usual_for_it(workspace: Workspace):
    config = AlignConfig(preference=PreferenceConfig(loss="ipo", flip_rate=0.1))
    with guest(workspace, "judged") as client:
        run = begun(client, workspace, "align", form_of(config, V1))

    assert run.inputs == {"model": V1, "comparisons": "improve"}
    assert run.config == recorded(config)
    assert recorded(config)["preference"]["beta"] == 0.5


def test_a_button_that_is_pressed_twice_begins_one_run(workspace: Workspace):
    fields = form_of(FinetuneConfig(), BASE)
    with guest(workspace, "judged") as client:
        run = begun(client, workspace, "finetune", fields)
        assert begun(client, workspace, "finetune", fields).id == run.id
        client.post("/train/finetune", data=fields | {"seed": "8"})

    assert sorted(each.seed for each in queued(workspace)) == [7, 8]


def test_the_model_that_led_here_is_chosen(workspace: Workspace):
    with guest(workspace, "done") as client:
        assert f'<option value="{V1}" selected>' in text(client, f"/train/align?model={V1}")
        assert f'<option value="{BASE}" selected>' in text(client, "/train/finetune?model=nobody")


def test_mistakes_stand_beside_their_fields_and_what_was_typed_is_kept(
    reader: TestClient, shelf: Workspace
):
    page = refused(
        reader,
        shelf,
        "finetune",
        form_of(FinetuneConfig(), BASE)
        | {
            "config.fit.num_epochs": "0",
            "config.lora.alpha": "41.5",
            "config.max_tokens": "a<b",
        },
    )

    assert page.count("Number of epochs must be at least 1.") == 2  # above, and beside the field
    assert '<a href="#config-max_tokens">Maximum tokens must be a whole number.</a>' in page
    assert 'aria-describedby="config-max_tokens-problem config-max_tokens-help"' in page
    assert 'name="config.max_tokens" value="a&lt;b"' in page
    assert 'name="config.fit.num_epochs" value="0"' in page
    assert 'name="config.lora.alpha" value="41.5"' in page
    assert re.search(r"<details[^>]* open><summary>Size of the small update", page)
    assert '<details class="train-section"><summary>How long and how fast' in page


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config.fit.num_epochs": "0"}, "Number of epochs must be at least 1."),
        ({"config.method": "half"}, "Method must be one of lora, qlora, layers, full."),
        ({"config.limit": "1" * 101}, "Limit must have at most 100 letters."),
        ({"config.speed": "1"}, "speed must be a knob of this form."),
        ({"speed": "1"}, "“speed” is no field of this form"),
        ({"s" * 5000: "1"}, "s…” is no field of this form"),
        ({"config.limit": ["1", "2"]}, "“config.limit” is no field of this form, or came twice."),
        ({"model": [BASE, V1]}, "“model” is no field of this form, or came twice."),
        ({"model": ""}, "Finetune needs a base model: name one."),
        ({"model": "nobody"}, "There is no model &#39;nobody&#39;"),
        ({"model": "m" * 101}, "Model must have at most 100 letters."),
        ({"model": V1}, "is a version made with LoRA; Finetune takes a base model."),
        ({"seed": "-1"}, "Seed must be a whole number from 0 to 4294967295."),
        ({"seed": "4294967296"}, "Seed must be a whole number from 0 to 4294967295."),
        ({"seed": ""}, "Seed must be a whole number"),
        ({"data": STARTER_PROMPTS}, "holds prompts, where demonstrations are needed."),
        ({"data": ["x"] * 21}, "“data” is no field of this form"),
    ],
)
def test_what_cannot_be_is_said(reader: TestClient, shelf: Workspace, changed: Fields, said: str):
    page = refused(reader, shelf, "finetune", form_of(FinetuneConfig(), BASE) | changed)
    assert said in page
    assert "Nothing was begun yet" in page


def test_all_numbers_out_of_their_bounds_are_named_at_once(reader: TestClient, shelf: Workspace):
    page = refused(
        reader,
        shelf,
        "align",
        form_of(AlignConfig(), V1)
        | {"config.preference.flip_rate": "0.5", "config.fit.num_epochs": "0", "seed": "x"},
    )
    for said in ("Flip rate must lie in [0, 0.5).", "Number of epochs must be", "Seed must be"):
        assert page.count(said) == 2  # above the form, and beside the field


def test_a_file_in_place_of_a_field_is_refused(reader: TestClient, shelf: Workspace):
    reply = reader.post("/train/finetune", files={"model": ("m.txt", b"gemma")})
    assert reply.status_code == 400
    assert queued(shelf) == []


def test_too_many_fields_and_too_many_bytes_are_refused(reader: TestClient):
    many = reader.post("/train/finetune", data={f"f{i}": "1" for i in range(201)})
    large = reader.post("/train/finetune", data={"model": "m" * (1 << 20)})
    assert (many.status_code, large.status_code) == (400, 413)


def test_another_pages_form_and_an_unknown_host_begin_nothing(workspace: Workspace):
    fields = form_of(FinetuneConfig(), BASE)
    with guest(workspace, "judged") as client:
        evil = {"origin": "http://evil.example"}
        foreign = client.post("/train/finetune", data=fields, headers=evil)
        rebound = client.post("/train/finetune", data=fields, headers={"host": "evil.example"})
        del client.headers["origin"]
        without = client.post("/train/finetune", data=fields)
    assert (foreign.status_code, rebound.status_code, without.status_code) == (403, 421, 403)
    assert queued(workspace) == []


@pytest.mark.parametrize(
    ("at", "stage", "said", "link"),
    [
        ("new", "finetune", "There is no base model here yet.", "/"),
        ("finetuning", "align", "There is no version made with LoRA here yet.", "/train/finetune"),
        ("judging", "align", f"{V1} has 13: judge 7 more.", "/judge"),
    ],
)
def test_what_is_missing_is_said_with_the_way_to_it(
    workspace: Workspace, at: Stage, stage: str, said: str, link: str
):
    with guest(workspace, at) as client:
        page = text(client, f"/train/{stage}")
        assert said in page
        assert f'class="button filled" href="{link}"' in page
        assert 'type="submit"' not in page
        assert said in text(client, "/train")
        config = FinetuneConfig() if stage == "finetune" else AlignConfig()
        assert said in refused(client, workspace, stage, form_of(config, V1))


def test_a_machine_that_cannot_train_says_so(
    reader: TestClient, shelf: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def not_found(_: str) -> None:
        return None

    monkeypatch.setattr(packages, "find_spec", not_found)
    page = text(reader, "/train/finetune")
    assert "Training needs torch, transformers" in page
    assert "pip install &#39;amenable[train]&#39;" in page
    assert 'type="submit"' not in page
    refused(reader, shelf, "finetune", form_of(FinetuneConfig(), BASE))


def test_what_qlora_needs_is_said_beside_the_method(
    reader: TestClient, shelf: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def found(name: str) -> str | None:
        return None if name == "bitsandbytes" else name

    monkeypatch.setattr(packages, "find_spec", found)
    typed = form_of(FinetuneConfig(method="qlora"), BASE)
    assert "QLoRA needs bitsandbytes." in refused(reader, shelf, "finetune", typed)


@pytest.mark.parametrize(("path", "status"), [("prepare", 404), ("nothing", 404), ("No-1", 422)])
def test_a_way_to_train_that_is_none_is_not_found(reader: TestClient, path: str, status: int):
    assert reader.get(f"/train/{path}").status_code == status
    assert reader.post(f"/train/{path}", data={}).status_code == status


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    title: str = "a first one"
    """What it is called."""
    num_layers: int = 6
    """How deep it is."""


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that one entry brings onto the page, data sets and all."""
    method = Method(
        title="Read on",
        sentence="A base model reads more.",
        models=("base",),
        is_model_optional=True,
        data=("conversation", "text"),
        is_data_optional=False,
    )
    monkeypatch.setitem(METHODS, "pretrain", method)
    monkeypatch.setitem(STAGE_CONFIGS, "pretrain", ReadingConfig)
    monkeypatch.setattr(train, "recorded", asdict)
    monkeypatch.setattr("amenable.pipeline.begin.recorded", asdict)


@pytest.mark.usefixtures("reading")
def test_one_entry_gives_a_stage_its_form(workspace: Workspace):
    with guest(workspace, "judged") as client:
        page = text(client, "/train/pretrain")
        assert "none: from scratch" in page
        assert f'name="data" value="{STARTER_DEMONSTRATIONS}"' in page
        assert f'value="{STARTER_PROMPTS}"' not in page
        assert 'type="text" id="config-title"' in page
        nothing: Fields = {"model": "", "seed": "7", "config.num_layers": "2"}
        assert "learns from a data set: name at least one" in refused(
            client, workspace, "pretrain", nothing
        )
        wrong = refused(
            client,
            workspace,
            "pretrain",
            nothing | {"data": [STARTER_DEMONSTRATIONS, STARTER_PROMPTS]},
        )
        assert "where demonstrations or plain text are needed" in wrong
        assert f'value="{STARTER_DEMONSTRATIONS}" checked' in wrong
        run = begun(client, workspace, "pretrain", nothing | {"data": [STARTER_DEMONSTRATIONS]})
    assert run.inputs == {"data": STARTER_DEMONSTRATIONS}
    assert run.config == {"title": "a first one", "num_layers": 2}


@pytest.mark.usefixtures("reading")
def test_a_stage_without_its_data_says_where_to_add_some(workspace: Workspace):
    with guest(workspace, "new") as client:
        page = text(client, "/train/pretrain")
    assert "It learns from demonstrations or plain text, and no data set here holds any." in page
    assert 'class="button filled" href="/data#add"' in page
