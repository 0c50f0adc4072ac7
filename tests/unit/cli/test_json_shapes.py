import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.journeys.seed import BASE, V1, V2
from tests.unit.cli.conftest import Ask

from amenable.apps.cli import working
from amenable.apps.cli.main import status_of
from amenable.pipeline.report import newest_comparison, read_result
from amenable.pipeline.stage import Context, Stage
from amenable.records.errors import DataError
from amenable.reports.result import RESULT_FILE, Lineage, from_json, to_json
from amenable.store import runs
from amenable.store.workspace import Workspace

RUN_KEYS = {
    *("run", "stage", "status", "inputs", "outputs", "config", "seed", "versions"),
    *("created_at", "seconds", "peak_memory_bytes", "error"),
}


def use_stages(monkeypatch: pytest.MonkeyPatch, **stages: Stage) -> None:
    def given() -> Mapping[str, Stage]:
        return stages

    monkeypatch.setattr(working, "stages", given)


def makes_a_model(context: Context) -> dict[str, str]:
    return {"model": f"{context.run.inputs['model']}-next"}


def test_models_list(ask: Ask):
    found = ask("models", "list")

    assert found["models"][0]["name"] == BASE
    assert {"name", "kind", "sha256", "parent", "licence", "origin"} <= found["models"][0].keys()
    assert BASE not in {known["name"] for known in found["known"]}


def test_models_show(ask: Ask):
    found = ask("models", "show", V1)

    assert (found["parent"], found["children"]) == (BASE, [V2])


def test_models_show_of_one_that_can_be_added(ask: Ask):
    found = ask("models", "show", "smollm2-135m-instruct")

    assert found["licence"] == "Apache-2.0"


def test_models_remove(ask: Ask, folder: Path):
    assert ask("models", "remove", V2) == {"removed": V2}
    assert V2 not in {model["name"] for model in ask("models", "list")["models"]}


def test_data_list_and_show(ask: Ask):
    first = ask("data", "list")["datasets"][0]
    shown = ask("data", "show", first["name"])

    assert {"name", "kind", "rows", "sealed", "rejected", "licence", "used"} <= first.keys()
    assert {"problems", "examples"} <= shown.keys()


def test_data_use(ask: Ask):
    assert ask("data", "use", "--prompts", "starter") == {
        "demonstrations": ["starter-demonstrations"],
        "prompts": ["starter-prompts"],
    }


def test_runs_list_and_show(ask: Ask):
    found = ask("runs", "list", "--limit", "2")["runs"]
    shown = ask("runs", "show", found[0]["run"])

    assert [each.keys() for each in found] == [RUN_KEYS] * 2
    assert shown.keys() == {*RUN_KEYS, "folder", "last_metrics"}


def test_runs_stop(ask: Ask, folder: Path):
    with Workspace.open(folder) as workspace, workspace.database.write() as session:
        run_id = runs.queue(session, stage="sample", inputs={}, config={}, seed=1)

    assert ask("runs", "stop", run_id)["status"] == "stopped"


def test_runs_resume_goes_on_here(ask: Ask, folder: Path, monkeypatch: pytest.MonkeyPatch):
    use_stages(monkeypatch, finetune=makes_a_model)
    with Workspace.open(folder) as workspace, workspace.database.write() as session:
        run_id = runs.queue(session, stage="finetune", inputs={"model": BASE}, config={}, seed=1)
        runs.request_stop(session, run_id)

    found = ask("runs", "resume", run_id)

    assert (found["status"], found["outputs"]) == ("done", {"model": f"{BASE}-next"})


def test_report(ask: Ask, folder: Path, tmp_path: Path):
    out = tmp_path / "page.html"
    with Workspace.open(folder) as workspace:
        place = workspace.run_folder(newest_comparison(workspace)) / RESULT_FILE
        # The seeded result says less of some models than a real one does.
        result = from_json(place.read_bytes())
        lineage = {
            model.name: Lineage(parent=None, kind=model.kind, facts={}) for model in result.models
        }
        place.write_bytes(to_json(replace(result, examples=(), lineage=lineage)))

    found = ask("report", "--out", str(out))

    assert found == {"run": found["run"], "report": str(out)}
    assert out.read_text("utf-8").startswith("<!doctype html>")


def test_env(ask: Ask):
    found = ask("env")

    assert found["packages"]["amenable"]
    assert found["workspace"]["is_there"]
    assert BASE in found["workspace"]["models"]


def test_finetune(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    use_stages(monkeypatch, finetune=makes_a_model)

    found = ask("finetune", BASE, "--lora.rank", "8", "--seed", "3")

    assert found.keys() == RUN_KEYS
    assert found["outputs"] == {"model": f"{BASE}-next"}
    assert (found["config"]["lora"]["rank"], found["seed"]) == (8, 3)


def test_finetune_on_a_mixture(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    use_stages(monkeypatch, finetune=makes_a_model)

    found = ask("finetune", BASE, "--data", "starter:0.5")

    assert found["inputs"] == {"model": BASE, "data": "starter-demonstrations:0.5"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("starter:0", "data is 'starter:0', but must be NAME or NAME:WEIGHT, up to 100."),
        ("starter:much", "data is 'starter:much', but must be NAME or NAME:WEIGHT"),
        ("starter:nan", "data is 'starter:nan', but must be NAME or NAME:WEIGHT"),
        ("ghost", "There is no data set 'ghost'."),
        ("starter-prompts", "'starter-prompts' holds prompts, where demonstrations are needed."),
    ],
)
def test_a_mixture_that_cannot_be_is_refused_before_anything_is_queued(
    folder: Path, capsys: pytest.CaptureFixture[str], word: str, said: str
):
    assert status_of(["finetune", BASE, "--data", word, "--workspace", str(folder)]) == 2
    assert said in capsys.readouterr().err


def test_a_set_stands_in_a_mixture_once(folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ["finetune", BASE, "--data", "starter", "starter:2", "--workspace", str(folder)]
    assert status_of(words) == 2
    assert "must name each data set once" in capsys.readouterr().err


def test_align(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    use_stages(monkeypatch, align=makes_a_model)

    found = ask("align", V1)

    assert found["inputs"] == {"model": V1, "comparisons": "improve"}


def test_compare_ends_with_the_rows(ask: Ask, folder: Path, monkeypatch: pytest.MonkeyPatch):
    with Workspace.open(folder) as workspace:
        before = newest_comparison(workspace)

    def compares(context: Context) -> dict[str, str]:
        result = read_result(context.workspace.run_folder(before))
        (context.folder / "result.json").write_bytes(to_json(result))
        print("a library that talks")  # noqa: T201
        return {"models": context.run.inputs["models"]}

    use_stages(monkeypatch, compare=compares)

    found = ask("compare", BASE, V1)

    assert found.keys() == {"rows"}
    row = next(each for each in found["rows"] if each["metric"] == "constraints_met")
    assert {"aspect", "metric", "unit", "n", "values", "differences"} <= row.keys()


def test_a_run_that_fails_is_told_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fails(context: Context) -> dict[str, str]:
        raise DataError("There is no demonstration to learn from.")

    use_stages(monkeypatch, finetune=fails)

    status = status_of(["finetune", BASE, "--json", "--workspace", str(folder)])

    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    last = told.err.splitlines()[-1]
    assert last.startswith("amenable: Run finetune-")
    assert last.endswith("failed: There is no demonstration to learn from.")


def test_an_unknown_model_is_refused_before_anything_is_queued(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    status = status_of(["finetune", "nobody", "--workspace", str(folder)])

    assert status == 2
    assert f"There is no model 'nobody'. There are: {BASE}" in capsys.readouterr().err
    with Workspace.open(folder) as workspace, workspace.database.read() as session:
        assert runs.list_runs(session, statuses=("queued",)) == []


def test_a_headless_start_without_the_terms_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = status_of(["start", "--headless", "--json", "--workspace", str(tmp_path / "new")])

    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    assert told.err.startswith("amenable: Gemma 3 270M comes under the Gemma Terms of Use.")
    assert told.err.count("\n") == 1


def test_adding_a_known_model_without_the_terms_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = status_of(["models", "add", "gemma-3-270m", "--workspace", str(tmp_path / "new")])

    assert status == 2
    assert "--accept-licence" in capsys.readouterr().err


def test_headless_ends_with_the_one_object(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    use_stages(monkeypatch)  # the seeded loop is done, so that no stage is needed

    status = status_of(
        ["start", "--headless", "--accept-licence", "--json", "--workspace", str(folder)]
    )

    told = capsys.readouterr()
    assert status == 0, told.err
    found = json.loads(told.out)
    assert found["models"] == {"base": BASE, "policy_1": V1, "policy_2": V2}
    assert found["seconds"].keys() == {"prepare", "finetune", "sample", "align", "compare"}
    assert found["simulated_people"]
    assert found["compare"]["rows"]
