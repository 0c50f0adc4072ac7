"""A run in one file: what leaves comes back whole, and what was tampered with changes nothing."""

import json
import shutil
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny import put_tiny
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, queue

from amenable.apps.cli.main import status_of
from amenable.pipeline import parcel
from amenable.pipeline.finetune import CHECKPOINT
from amenable.pipeline.parcel import MANIFEST, Parcel, files_of, opened
from amenable.pipeline.receive import receive
from amenable.pipeline.send import send, set_down
from amenable.pipeline.sources import install_starter
from amenable.records.errors import ConflictError, DataError, ModelError
from amenable.records.run import Run
from amenable.store import artifacts, library, runs
from amenable.store.artifacts import hash_folder, write_whole
from amenable.store.library import ModelEntry
from amenable.store.runs import RunEnd
from amenable.store.workspace import Workspace

ROWS = "run/demonstrations.jsonl"
Content = dict[str, bytes]
Change = Callable[[Content], None]


@pytest.fixture(scope="module")
def home_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a tiny base."""
    folder = tmp_path_factory.mktemp("home") / "workspace"
    with Workspace.open(folder) as workspace:
        install_starter(workspace)
        put_tiny(workspace)
    return folder


@contextmanager
def workspace_like(folder: Path, to: Path) -> Generator[Workspace]:
    shutil.copytree(folder, to)
    with Workspace.open(to) as workspace:
        yield workspace


@pytest.fixture
def home(home_folder: Path, tmp_path: Path) -> Generator[Workspace]:
    with workspace_like(home_folder, tmp_path / "home") as workspace:
        yield workspace


@pytest.fixture
def there(home_folder: Path, tmp_path: Path) -> Generator[Workspace]:
    with workspace_like(home_folder, tmp_path / "there") as workspace:
        yield workspace


def packed(workspace: Workspace, run_id: str, to: Path, *, with_models: bool = False) -> Path:
    send(workspace, set_down(workspace, run_id), to, with_models=with_models)
    return to


@pytest.fixture
def waiting(home: Workspace) -> str:
    """A run that nobody began."""
    return queue(home, "finetune", "tiny", SMALL_FINETUNE)


@pytest.fixture
def file(home: Workspace, waiting: str, tmp_path: Path) -> Path:
    return packed(home, waiting, tmp_path / "run.zip")


def end(workspace: Workspace, run_id: str, weights: bytes = b"weights") -> str:
    """As a stage would, without its work: the run has made a model."""
    with workspace.database.write() as session:
        runs.requeue(session, run_id)
        runs.start(session, run_id, "1@1")
        name = library.free_name(session, "tiny-instruct-1")
        (workspace.library / name).mkdir()
        write_whole(workspace.library / name / "adapter_model.safetensors", weights)
        entry = ModelEntry(
            name=name,
            sha256=hash_folder(workspace.library / name),
            kind="policy",
            chat_form="gemma",
            licence="CC0-1.0",
            origin="a test",
            folder=f"library/{name}",
            parent="tiny",
            base="tiny",
            run_id=run_id,
        )
        library.add_model(session, entry)
        runs.finish(session, run_id, "1@1", RunEnd(status="done", outputs={"model": name}))
    return name


def put_step(workspace: Workspace, run_id: str, step: int) -> None:
    """A checkpoint, as far as files go."""
    folder = workspace.run_folder(run_id) / CHECKPOINT
    shutil.rmtree(folder, ignore_errors=True)
    (folder / f"step-{step:06d}").mkdir(parents=True)
    (folder / f"step-{step:06d}" / "state.json").write_text("{}", "utf-8")


def get(workspace: Workspace, run_id: str) -> Run | None:
    with workspace.database.read() as session:
        return runs.find(session, run_id)


def held(workspace: Workspace) -> dict[str, Any]:
    """All that an import could change."""
    with workspace.database.read() as session:
        names = [row.name for row in library.models(session)]
        known = runs.list_runs(session)
    rooms = {room.name: files_of(room) for room in (workspace.library, workspace.runs)}
    unfinished = sorted(path.name for path in workspace.folder.rglob("*.unfinished"))
    return {"models": names, "runs": known, "unfinished": unfinished, **rooms}


def test_a_run_that_was_never_begun_freezes_its_data_and_waits_stopped(
    home: Workspace, there: Workspace, waiting: str, file: Path
):
    received = receive(there, file)

    here = get(there, waiting)
    assert here == received.run == get(home, waiting)
    assert here is not None
    assert here.status == "stopped"
    names = {"demonstrations.jsonl", "demonstrations.json"}
    assert {path.name for path in (there.runs / waiting).iterdir()} == names
    assert files_of(there.runs / waiting) == files_of(home.runs / waiting)
    assert (received.added, received.is_changed) == ((), True)


def test_the_same_run_packed_twice_is_the_same_file(
    home: Workspace, waiting: str, file: Path, tmp_path: Path
):
    assert packed(home, waiting, tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_what_a_killed_process_left_is_not_packed(home: Workspace, waiting: str, tmp_path: Path):
    folder = home.run_folder(waiting)
    (folder / CHECKPOINT / "step-000002.unfinished").mkdir(parents=True)
    (folder / CHECKPOINT / "step-000002.unfinished" / "state.json").write_text("{}", "utf-8")
    (folder / "progress.json.1a2b.unfinished").write_text("{", "utf-8")

    with opened(packed(home, waiting, tmp_path / "run.zip")) as found:
        assert set(found.manifest.files) == {"demonstrations.json", "demonstrations.jsonl"}


def test_what_was_made_comes_home_once(home: Workspace, there: Workspace, waiting: str, file: Path):
    receive(there, file)
    end(there, waiting)
    back = packed(there, waiting, file.with_name("back.zip"))

    first = receive(home, back)
    after = held(home)
    second = receive(home, back)

    assert (first.added, first.is_changed) == (("tiny-instruct-1",), True)
    assert (second.added, second.is_changed) == ((), False)
    assert held(home) == after
    assert get(home, waiting) == get(there, waiting)
    with home.database.read() as session:
        row = library.model(session, "tiny-instruct-1")
    assert (row.run_id, row.base, row.sha256) == (
        waiting,
        "tiny",
        hash_folder(home.library / row.name),
    )


def test_a_name_that_was_taken_meanwhile_gives_way(
    home: Workspace, there: Workspace, waiting: str, file: Path
):
    receive(there, file)
    end(there, waiting)
    end(home, other := queue_stopped(home), b"others")

    found = receive(home, packed(there, waiting, file.with_name("back.zip")))

    assert found.added == ("tiny-instruct-1-2",)
    assert found.run.outputs["model"] == "tiny-instruct-1-2"
    assert get(home, waiting) == found.run
    home_run = get(home, other)
    assert home_run is not None
    assert home_run.outputs["model"] == "tiny-instruct-1"


def queue_stopped(workspace: Workspace) -> str:
    return set_down(workspace, queue(workspace, "finetune", "tiny", SMALL_FINETUNE)).id


def test_the_base_goes_along_when_asked(home: Workspace, waiting: str, tmp_path: Path):
    file = packed(home, waiting, tmp_path / "whole.zip", with_models=True)

    with Workspace.open(tmp_path / "empty") as empty:
        assert receive(empty, file).added == ("tiny",)
        assert hash_folder(empty.library / "tiny") == hash_folder(home.library / "tiny")


def test_a_parent_goes_along_without_being_asked(home: Workspace, there: Workspace, waiting: str):
    set_down(home, waiting)
    run_id = queue(home, "align", end(home, waiting), {})

    found = receive(there, packed(home, run_id, home.folder / "align.zip"))

    assert found.added == ("tiny-instruct-1",)
    with there.database.read() as session:
        row = library.model(session, "tiny-instruct-1")
    # Its own run stayed at home: nothing here points at it.
    assert (row.parent, row.base, row.run_id) == ("tiny", "tiny", None)


def test_a_base_that_is_missing_is_said_with_the_way_to_it(
    home: Workspace, waiting: str, file: Path, tmp_path: Path
):
    with Workspace.open(tmp_path / "empty") as empty:
        with pytest.raises(ModelError, match=r"needs tiny, which is not in.* --with-models"):
            receive(empty, file)
        assert get(empty, waiting) is None


def test_a_known_base_that_is_missing_can_be_added_by_name(
    home: Workspace, there: Workspace, tmp_path: Path
):
    run_id = queue(home, "finetune", put_tiny(home, "gemma-3-270m"), SMALL_FINETUNE)

    with pytest.raises(ModelError, match="Bring it first: amenable models add gemma-3-270m"):
        receive(there, packed(home, run_id, tmp_path / "run.zip"))


def goes_on(workspace: Workspace, run_id: str) -> Callable[..., None]:
    """Somebody presses Continue while files are read."""

    def press(*_: object) -> None:
        with workspace.database.write() as session:
            runs.requeue(session, run_id)

    return press


def test_a_run_that_goes_on_while_it_is_packed_is_not_packed(
    home: Workspace, waiting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = set_down(home, waiting)
    monkeypatch.setattr(Parcel, "check", goes_on(home, waiting))

    with pytest.raises(ConflictError, match="went on while it was packed"):
        send(home, run, tmp_path / "run.zip")

    assert not list(tmp_path.glob("run.zip*"))


def test_a_run_that_goes_on_while_it_is_brought_in_is_left_alone(
    home: Workspace, there: Workspace, waiting: str, file: Path, monkeypatch: pytest.MonkeyPatch
):
    receive(there, file)
    put_step(there, waiting, 3)
    back = packed(there, waiting, file.with_name("back.zip"))
    before = files_of(home.runs / waiting)
    monkeypatch.setattr(Parcel, "unpack", goes_on(home, waiting))

    with pytest.raises(ConflictError, match="was changed meanwhile"):
        receive(home, back)

    assert files_of(home.runs / waiting) == before


def test_another_model_of_that_name_is_refused(there: Workspace, file: Path):
    before = held(there)
    write_whole(there.library / "tiny" / "config.json", b"{}")
    before["library"] = files_of(there.library)

    with pytest.raises(ModelError, match=r"tiny here is not the model of this run: config.json"):
        receive(there, file)

    assert held(there) == before


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_run_that_is_at_work_here_is_refused(
    home: Workspace, waiting: str, file: Path, status: str
):
    with home.database.write() as session:
        runs.requeue(session, waiting)
        if status == "running":
            runs.start(session, waiting, "1@1")

    with pytest.raises(ConflictError, match=f"is {status} here. Stop it first"):
        receive(home, file)


def test_a_run_at_work_is_not_packed(home: Workspace, waiting: str):
    with home.database.write() as session:
        runs.start(session, waiting, "1@1")

    with pytest.raises(
        ConflictError, match=f"is running. Stop it first: amenable runs stop {waiting}"
    ):
        set_down(home, waiting)


def test_what_trains_nothing_is_not_packed(home: Workspace):
    with pytest.raises(ConflictError, match="only runs of pretrain, finetune, align, reward"):
        set_down(home, queue(home, "sample", "tiny"))


def test_a_run_whose_model_was_removed_is_not_packed(home: Workspace, waiting: str, tmp_path: Path):
    set_down(home, waiting)
    name = end(home, waiting)
    with home.database.write() as session:
        library.remove_model(session, name)

    with pytest.raises(ConflictError, match="is done, but its model was removed"):
        packed(home, waiting, tmp_path / "run.zip")


def test_a_file_that_is_there_is_not_written_over(home: Workspace, waiting: str, file: Path):
    with pytest.raises(DataError, match=r"There is a file .* already"):
        packed(home, waiting, file)


def test_a_full_disk_leaves_no_half_parcel(
    home: Workspace, waiting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    run = set_down(home, waiting)
    home.run_folder(waiting)
    monkeypatch.setattr("amenable.pipeline.send.os.fsync", full)

    with pytest.raises(OSError, match="No space left"):
        send(home, run, tmp_path / "run.zip")

    assert not list(tmp_path.glob("run.zip*"))


def test_a_full_disk_while_it_is_put_in_place_changes_nothing(
    there: Workspace, file: Path, monkeypatch: pytest.MonkeyPatch
):
    before = held(there)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "bring", full)
    with pytest.raises(OSError, match="No space left"):
        receive(there, file)

    assert held(there) == before


def test_a_run_here_that_is_further_is_not_set_back(home: Workspace, waiting: str, tmp_path: Path):
    put_step(home, waiting, 9)
    file = packed(home, waiting, tmp_path / "run.zip")
    put_step(home, waiting, 10)

    with pytest.raises(ConflictError, match="is at step 10 here, and at step 9 in this file"):
        receive(home, file)


def test_a_run_that_went_on_elsewhere_is_brought_up_to_date(
    home: Workspace, there: Workspace, waiting: str, tmp_path: Path
):
    put_step(home, waiting, 9)
    receive(there, packed(home, waiting, tmp_path / "run.zip"))
    put_step(there, waiting, 30)

    found = receive(home, packed(there, waiting, tmp_path / "back.zip"))

    assert found.is_changed
    assert files_of(home.runs / waiting) == files_of(there.runs / waiting)
    assert held(home)["unfinished"] == []


def test_what_is_done_here_otherwise_stays(
    home: Workspace, there: Workspace, waiting: str, file: Path
):
    receive(there, file)
    end(there, waiting)
    end(home, waiting, b"other weights")
    before = held(home)

    with pytest.raises(ConflictError, match="is done here, and this file has it with another"):
        receive(home, packed(there, waiting, file.with_name("back.zip")))
    with pytest.raises(ConflictError, match="is done here, and this file has it before its end"):
        receive(home, file)

    assert held(home) == before


def test_what_a_killed_import_left_is_in_nobodys_way(
    home: Workspace, there: Workspace, waiting: str, file: Path
):
    """Before the rows were committed: folders half filled, set aside, or in place already."""
    receive(there, file)
    end(there, waiting)
    back = packed(there, waiting, file.with_name("back.zip"))
    for litter in ("unfinished", "before.unfinished"):
        shutil.copytree(home.runs / waiting, home.runs / f"{waiting}.{litter}")
        (home.runs / f"{waiting}.{litter}" / "old.json").touch()
    (home.library / "tiny-instruct-1").mkdir()
    (home.library / "tiny-instruct-1" / "old.json").touch()

    assert receive(home, back).added == ("tiny-instruct-1",)

    assert held(home) == held(there)


def test_another_run_of_the_same_name_stays(home: Workspace, there: Workspace, file: Path):
    with opened(file) as found:
        run = found.manifest.run
    with there.database.write() as session:
        runs.bring(session, replace(run, seed=9))

    with pytest.raises(ConflictError, match="Another run is called"):
        receive(there, file)


def told(content: Content) -> Any:
    return json.loads(content[MANIFEST])


def say(*keys: str, value: Any) -> Change:
    """The manifest says something else at this place."""

    def change(content: Content) -> None:
        manifest = told(content)
        place = manifest
        for key in keys[:-1]:
            place = place[int(key) if key.isdigit() else key]
        place[keys[-1]] = value
        content[MANIFEST] = json.dumps(manifest).encode()

    return change


def put(name: str, data: bytes = b"{}") -> Change:
    def change(content: Content) -> None:
        content[name] = data

    return change


def put_and_name(name: str) -> Change:
    """A file that the manifest knows too."""

    def change(content: Content) -> None:
        content[f"run/{name}"] = b"{}"
        manifest = told(content)
        manifest["files"][name] = {"size": 2, "sha256": artifacts.hashlib.sha256(b"{}").hexdigest()}
        content[MANIFEST] = json.dumps(manifest).encode()

    return change


def without(name: str) -> Change:
    def change(content: Content) -> None:
        del content[name]

    return change


def flipped(content: Content) -> None:
    content[ROWS] = content[ROWS][:-2] + b"!" + content[ROWS][-1:]


def named_twice(content: Content) -> None:
    models = told(content)["models"]
    say("models", value=models * 2)(content)


def twin_keys(content: Content) -> None:
    content[MANIFEST] = content[MANIFEST].replace(b'"form": 1', b'"form": 1, "form": 1')


CHANGES: dict[str, tuple[Change, str]] = {
    "tampered": (flipped, "demonstrations.jsonl is not what was packed"),
    "missing": (without(ROWS), "demonstrations.jsonl is missing"),
    "extra": (put("run/more.json"), "run/more.json does not belong to it"),
    "wrong hash": (
        say("files", "demonstrations.jsonl", "sha256", value="0" * 64),
        "demonstrations.jsonl is not what was packed",
    ),
    "no hash": (say("files", "demonstrations.jsonl", "sha256", value="x"), "sha256"),
    "wrong size": (say("files", "demonstrations.jsonl", "size", value=7), "and should have 7"),
    "upwards": (put_and_name("../evil.json"), "is no name that a file of a run could have"),
    "absolute": (put("/evil.json"), "is no name that a file of a run could have"),
    "drive": (put("run/c:evil.json"), "is no name that a file of a run could have"),
    "pickle": (put_and_name("weights.pt"), "of a kind that no run needs"),
    "twin names": (put("RUN/demonstrations.jsonl"), "two files in it have the same name"),
    "no manifest": (without(MANIFEST), "there is no manifest.json"),
    "no JSON": (put(MANIFEST, b"{"), "is not JSON"),
    "a list": (put(MANIFEST, b"[]"), "is of form None"),
    "twin keys": (twin_keys, "stands twice"),
    "newer form": (say("form", value=2), "is of form 2, and this version reads form 1"),
    "no config": (say("run", "config", value=3), "run.config"),
    "a seed in words": (say("run", "seed", value="9" * 30), "run.seed"),
    "unknown knob": (say("run", "config", value={"evil": 1}), "evil"),
    "run upwards": (say("run", "id", value="../x"), "is no name of a run"),
    "unknown stage": (say("run", "stage", value="prepare"), "a run of 'prepare' cannot be carried"),
    "running": (say("run", "status", value="running"), "was packed while it was running"),
    "done": (say("run", "status", value="done"), "is done, and what is said of its model is not"),
    "no zone": (say("run", "created_at", value="2026-11-23T01:02:03"), "without its time zone"),
    "model upwards": (
        say("models", "0", "entry", "name", value="../tiny"),
        "no model of a library",
    ),
    "model's kind": (say("models", "0", "entry", "kind", value="evil"), "no model of a library"),
    "model's hash": (
        say("models", "0", "entry", "sha256", value="0" * 64),
        "the hash of tiny is not that of its files",
    ),
    "twin models": (named_twice, "a model is named in it twice"),
    "no model": (say("models", value=[]), "the model that the run began with is not named"),
}


def rewrite(path: Path, change: Change) -> None:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def refused(workspace: Workspace, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """One line, status 2, and nothing changed."""
    before = held(workspace)

    assert status_of(["runs", "import", str(path), "--workspace", str(workspace.folder)]) == 2

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert held(workspace) == before
    return said


@pytest.fixture(scope="module")
def strict(home_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Workspace]:
    """For all that is refused, since nothing of it may leave a trace."""
    with workspace_like(home_folder, tmp_path_factory.mktemp("strict") / "there") as workspace:
        yield workspace


@pytest.fixture(scope="module")
def untouched(home_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untouched")
    with workspace_like(home_folder, folder / "home") as workspace:
        run_id = queue(workspace, "finetune", "tiny", SMALL_FINETUNE)
        return packed(workspace, run_id, folder / "run.zip")


@pytest.fixture
def sent(untouched: Path, tmp_path: Path) -> Path:
    """A whole parcel, to be spoiled."""
    return Path(shutil.copy(untouched, tmp_path))


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_on_the_way_is_refused(
    strict: Workspace, sent: Path, capsys: pytest.CaptureFixture[str], name: str
):
    change, expected = CHANGES[name]
    rewrite(sent, change)

    assert expected in refused(strict, sent, capsys)


def entry_with(path: Path, **attributes: Any) -> None:
    """One more file, written with these attributes of a zip entry."""
    info = zipfile.ZipInfo("run/more.json")
    for name, value in attributes.items():
        setattr(info, name, value)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, b"{}" * 100)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"external_attr": 0o120777 << 16}, "is a link or no plain file"),
        ({"compress_type": zipfile.ZIP_DEFLATED}, "is compressed or encrypted"),
    ],
    ids=["link", "compressed"],
)
def test_links_and_compression_are_refused(
    strict: Workspace,
    sent: Path,
    capsys: pytest.CaptureFixture[str],
    attributes: dict[str, Any],
    expected: str,
):
    entry_with(sent, **attributes)

    assert expected in refused(strict, sent, capsys)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(places=st.sets(st.integers(1, 1500), min_size=1, max_size=6), byte=st.integers(0, 255))
def test_whatever_is_spoiled_in_its_directory_is_said_in_words(
    untouched: Path, tmp_path: Path, places: set[int], byte: int
):
    """Bytes from the end on: names, sizes, places and flags of a zip file stand there."""
    data = bytearray(untouched.read_bytes())
    for place in places:
        data[-place] = byte
    (tmp_path / "spoiled.zip").write_bytes(data)

    with suppress(DataError), opened(tmp_path / "spoiled.zip") as found:
        assert found.manifest.run.inputs == {"model": "tiny"}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_parcel_cut_short_is_refused(
    strict: Workspace, sent: Path, capsys: pytest.CaptureFixture[str], share: float
):
    data = sent.read_bytes()
    sent.write_bytes(data[: int(share * len(data))])

    assert "run.zip is no whole parcel" in refused(strict, sent, capsys)


def test_a_flipped_bit_is_found(strict: Workspace, sent: Path, capsys: pytest.CaptureFixture[str]):
    data = bytearray(sent.read_bytes())
    data[data.index(b'"role"')] ^= 1
    sent.write_bytes(data)

    assert "Bad CRC-32" in refused(strict, sent, capsys)


def test_what_is_no_file_is_said(strict: Workspace, capsys: pytest.CaptureFixture[str]):
    assert "There is no file nowhere.zip." in refused(strict, Path("nowhere.zip"), capsys)


def test_bounds_are_kept(
    strict: Workspace,
    sent: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as patch:
        patch.setattr(parcel, "MOST_FILES", 2)
        assert "it holds 3 files, where 2 are the most" in refused(strict, sent, capsys)
    with monkeypatch.context() as patch:
        patch.setattr(parcel, "LIMITS", parcel.Limits(max_row_bytes=100))
        assert "manifest.json is longer than 100 bytes" in refused(strict, sent, capsys)


def test_a_file_that_claims_more_than_there_is_is_refused(
    strict: Workspace, sent: Path, capsys: pytest.CaptureFixture[str]
):
    """Sizes stand in the directory at the end: four bytes each, packed and unpacked."""
    data = bytearray(sent.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = (2**31).to_bytes(4, "little") * 2
    sent.write_bytes(data)

    assert "claim to be larger than it is" in refused(strict, sent, capsys)
