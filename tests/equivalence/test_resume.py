"""A run that was killed and goes on ends with the same bits as one that never was."""

import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.equivalence.killed import Moment, live
from tests.tiny import put_tiny

from amenable.feedback.tasks import Pile
from amenable.pipeline.progress import read_film, read_metrics
from amenable.pipeline.receive import receive
from amenable.pipeline.send import send, set_down
from amenable.pipeline.simulate import judge_what_waits
from amenable.pipeline.sources import install_starter
from amenable.pipeline.stage import execute
from amenable.pipeline.stages import STAGES
from amenable.starter.load import plain_texts
from amenable.store import library, runs
from amenable.store.artifacts import hash_file
from amenable.store.library import DatasetEntry
from amenable.store.workspace import Workspace

FIT = {"tokens_per_step": 300, "tokens_per_batch": 300, "checkpoint_seconds": 0}
FINETUNE = {"limit": 10, "max_tokens": 100, "lora": {"rank": 2}, "fit": FIT | {"num_epochs": 2}}
ALIGN = {
    "max_tokens": 120,
    "fit": FIT | {"tokens_per_step": 150, "tokens_per_batch": 150, "num_epochs": 2},
}
PRETRAIN = {
    "shape": {"vocabulary": 400, "hidden": 32, "layers": 1, "heads": 2},
    "context": 64,
    "fit": FIT | {"tokens_per_step": 1000, "tokens_per_batch": 1000},
}
REWARD = ALIGN | {"num_heads": 2, "held_out_share": 0.3}
SAMPLE = {"purpose": "improve", "num_prompts": 30, "max_new_tokens": 8}


def queue(workspace: Workspace, stage: str, model: str, config: dict[str, Any]) -> str:
    with workspace.database.write() as session:
        return runs.queue(session, stage=stage, inputs={"model": model}, config=config, seed=3)


def done(workspace: Workspace, run_id: str) -> str:
    ended = execute(workspace, run_id, STAGES)
    assert ended.status == "done", ended.error
    return ended.outputs["model"]


@pytest.fixture(scope="module")
def finetuning(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace where a finetuning run is about to begin."""
    with Workspace.open(tmp_path_factory.mktemp("finetune") / "workspace") as workspace:
        install_starter(workspace)
        run_id = queue(workspace, "finetune", put_tiny(workspace), FINETUNE)
        return workspace.folder, run_id


@pytest.fixture(scope="module")
def in_four_bits(
    finetuning: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The same finetuning, on a base whose layers are put in 4 bits anew whenever it goes on."""
    folder = tmp_path_factory.mktemp("qlora") / "workspace"
    shutil.copytree(finetuning[0], folder)
    with Workspace.open(folder) as workspace:
        return folder, queue(workspace, "finetune", "tiny", FINETUNE | {"method": "qlora"})


@pytest.fixture(scope="module")
def aligning(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace where pairs of a first version were judged, and an improvement is to begin."""
    with Workspace.open(tmp_path_factory.mktemp("align") / "workspace") as workspace:
        install_starter(workspace)
        policy = done(workspace, queue(workspace, "finetune", put_tiny(workspace), FINETUNE))
        done(workspace, queue(workspace, "sample", policy, SAMPLE))
        with workspace.database.write() as session:
            assert judge_what_waits(session, [Pile("improve")], seed=1) >= 20
        return workspace.folder, queue(workspace, "align", policy, ALIGN)


@pytest.fixture(scope="module")
def one_by_one(
    aligning: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The same judgements, each reply by itself: every step reads other replies before its loss."""
    folder = tmp_path_factory.mktemp("kto") / "workspace"
    shutil.copytree(aligning[0], folder)
    with Workspace.open(folder) as workspace:
        with workspace.database.read() as session:
            policy = runs.get(session, aligning[1]).inputs["model"]
        config = ALIGN | {"preference": {"loss": "kto"}}
        return folder, queue(workspace, "align", policy, config)


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace where a new base is about to be made: its start is a part of what is kept."""
    with Workspace.open(tmp_path_factory.mktemp("pretrain") / "workspace") as workspace:
        with workspace.database.write() as session:
            entry = DatasetEntry(name="pages", sha256="pages", kind="text", source="a test")
            library.add_dataset(session, entry, [each.to_json() for each in plain_texts()[:6]])
            run_id = runs.queue(
                session, stage="pretrain", inputs={"data": "pages"}, config=PRETRAIN, seed=3
            )
        return workspace.folder, run_id


@pytest.fixture(scope="module")
def rewarding(
    aligning: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The same judgements once more, to be predicted."""
    folder = tmp_path_factory.mktemp("reward") / "workspace"
    shutil.copytree(aligning[0], folder)
    with Workspace.open(folder) as workspace:
        with workspace.database.read() as session:
            policy = runs.get(session, aligning[1]).inputs["model"]
        return folder, queue(workspace, "reward", policy, REWARD)


BEGUN = ["finetuning", "in_four_bits", "aligning", "one_by_one", "rewarding", "pretraining"]


@pytest.fixture(params=BEGUN)
def before(request: pytest.FixtureRequest) -> tuple[Path, str]:
    return request.getfixturevalue(request.param)


@pytest.fixture
def copy(before: tuple[Path, str], tmp_path: Path) -> Callable[[str], Path]:
    """The same beginning again, as often as wanted."""

    def make(name: str) -> Path:
        shutil.copytree(before[0], tmp_path / name)
        return tmp_path / name

    return make


def story(folder: Path, run_id: str) -> dict[str, Any]:
    """All that a run leaves behind, but for the clock's share."""
    with Workspace.open(folder) as workspace:
        with workspace.database.read() as session:
            run = runs.get(session, run_id)
            model = library.model(session, run.outputs["model"])
            parent = model.parent
        room = workspace.run_folder(run_id)
        metrics = [
            {name: value for name, value in line.items() if name != "seconds"}
            for line in read_metrics(room)
        ]
        return {
            "weights": {
                path.name: hash_file(path)
                for path in (workspace.folder / model.folder).glob("*.safetensors")
            },
            "outputs": run.outputs,
            "parent": parent,
            "metrics": metrics,
            "film": read_film(room),
            "files": sorted(path.name for path in (workspace.library).iterdir()),
        }


@cache
def unbroken(folder: Path, run_id: str) -> dict[str, Any]:
    """The story of the run that nobody killed, lived in a copy."""
    calm = folder.with_name("unbroken")
    shutil.copytree(folder, calm)
    assert live(calm, run_id) == "done"
    return story(calm, run_id)


def test_a_run_killed_twice_ends_with_the_same_bits(
    before: tuple[Path, str], copy: Callable[[str], Path]
):
    """The steps are drawn anew in every session of tests, whose seed is printed on top."""
    run_id = before[1]
    expected = unbroken(*before)
    steps = [line["step"] for line in expected["metrics"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 4

    first, second = sorted(random.sample(steps, 2))
    broken = copy("broken")
    assert live(broken, run_id, Moment(first, "after the save")) == "killed"
    assert live(broken, run_id, Moment(second, "before the save")) == "killed"
    assert live(broken, run_id) == "done"
    assert story(broken, run_id) == expected, (first, second)

    torn = copy("torn")
    (within,) = random.sample(steps, 1)
    assert live(torn, run_id, Moment(within, "within the save")) == "killed"
    assert list((torn / "runs" / run_id / "checkpoint").glob("*.unfinished"))
    assert live(torn, run_id) == "done"
    assert story(torn, run_id) == expected, within


def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_alike(
    before: tuple[Path, str], copy: Callable[[str], Path]
):
    run_id = before[1]
    damaged = copy("damaged")
    assert live(damaged, run_id, Moment(3, "after the save")) == "killed"
    (checkpoint,) = (damaged / "runs" / run_id / "checkpoint").glob("step-*/*.safetensors")
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 1
    checkpoint.write_bytes(content)
    assert live(damaged, run_id) == "done"
    assert story(damaged, run_id) == unbroken(*before)


def carried(source: Path, run_id: str, target: Path) -> None:
    """What a killed worker left behind, to another workspace by one file."""
    file = source.with_suffix(".zip")
    with Workspace.open(source) as workspace:
        with workspace.database.write() as session:
            runs.requeue_orphans(session, lambda _: False)
        send(workspace, set_down(workspace, run_id), file)
    with Workspace.open(target) as workspace:
        assert receive(workspace, file).is_changed
    file.unlink()


def test_a_run_that_goes_on_elsewhere_ends_with_the_same_bits(
    before: tuple[Path, str], copy: Callable[[str], Path], tmp_path: Path
):
    """There stands a base model alone: no data, no judgements."""
    run_id, elsewhere = before[1], tmp_path / "elsewhere"
    home = copy("home")
    assert live(home, run_id, Moment(3, "after the save")) == "killed"
    begun = read_metrics(home / "runs" / run_id)[:3]
    with Workspace.open(elsewhere) as workspace:
        put_tiny(workspace)

    carried(home, run_id, elsewhere)
    with Workspace.open(elsewhere) as workspace, workspace.database.write() as session:
        assert runs.requeue(session, run_id).status == "queued"
    assert live(elsewhere, run_id) == "done"
    carried(elsewhere, run_id, home)

    assert story(home, run_id) == unbroken(*before)
    # Down to the clock's share: elsewhere the first steps were not taken again.
    assert read_metrics(home / "runs" / run_id)[:3] == begun
    assert not list(home.rglob("*.unfinished"))
