"""A parcel: one run in one file, with all that it needs elsewhere; read without any trust."""

import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import Field, TypeAdapter, ValidationError

from amenable.chat.template import FORMS
from amenable.datasets.strict import Limits, RowError, parse_json, shown
from amenable.pipeline.config import STAGE_CONFIGS
from amenable.pipeline.frozen import LESSONS
from amenable.pipeline.knobs import read_config
from amenable.records.errors import DataError
from amenable.records.run import Run
from amenable.store.artifacts import CHUNK_BYTES, flush_folder, hash_file, hash_of
from amenable.store.library import KINDS, NAME, ModelEntry
from amenable.store.runs import FINISHED
from amenable.store.workspace import RUN_ID

FORM = 1
MANIFEST = "manifest.json"
RUN, MODELS = "run", "models"
"""Folders in a parcel: the run's own, and one for each model that is carried."""
LIMITS = Limits(max_row_bytes=4 * 2**20)
MOST_FILES = 5000
PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,99}/){0,6}[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
SUFFIXES = {".json", ".jsonl", ".jinja", ".md", ".model", ".safetensors", ".txt"}
"""What is kept of runs and models; nothing else could be wanted, and much else can hide code."""
UNREADABLE = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError)
"""What the reader of zip files says of those that are broken, encrypted or too new."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFile:
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @classmethod
    def of(cls, path: Path) -> "PackedFile":
        return cls(size=path.stat().st_size, sha256=hash_file(path))


Files = Mapping[str, PackedFile]
"""By their names below a folder, with slashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedModel:
    """A model that the run began with or made, and every file of it."""

    entry: ModelEntry
    files: Files
    is_carried: bool
    """Whether the files are in the parcel, or only what they are known by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a parcel holds."""

    form: int = FORM
    packed_with: Mapping[str, str]
    """Versions of this program and of what decides the numbers."""
    run: Run
    files: Files
    """Of the run's folder."""
    models: Sequence[PackedModel]
    """Parents before their children."""

    @property
    def carried(self) -> dict[str, PackedFile]:
        """Every file of the parcel but this one."""
        return {
            **{f"{RUN}/{name}": file for name, file in self.files.items()},
            **{
                f"{MODELS}/{model.entry.name}/{name}": file
                for model in self.models
                if model.is_carried
                for name, file in model.files.items()
            },
        }

    @property
    def made(self) -> PackedModel | None:
        """What the run made; None while it is not done."""
        return next((each for each in self.models if each.entry.run_id == self.run.id), None)

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.carried.values())

    def to_json(self) -> bytes:
        return _MANIFEST.dump_json(self, indent=1) + b"\n"


_MANIFEST = TypeAdapter(Manifest)


def files_of(folder: Path) -> dict[str, PackedFile]:
    """Whole files alone: what a killed process left half written counts nowhere."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): PackedFile.of(path)
        for name, path in sorted(found.items())
        if not any(part.endswith(".unfinished") for part in name.parts)
    }


@dataclass(frozen=True, slots=True)
class Parcel:
    """An open parcel whose manifest was checked; the files are when they are read."""

    path: Path
    manifest: Manifest
    archive: zipfile.ZipFile

    def unpack(self, folder_in: str, files: Files, to: Path) -> None:
        """The files of one folder of the parcel into a new folder, on the disk when it returns."""
        for name, file in files.items():
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                self._read(f"{folder_in}/{name}", file, target)
                target.flush()
                os.fsync(target.fileno())
            flush_folder(path.parent)

    def check(self) -> None:
        """Read every file to its end."""
        for name, file in self.manifest.carried.items():
            self._read(name, file, None)

    def _read(self, name: str, file: PackedFile, target: BinaryIO | None) -> None:
        digest = hashlib.sha256()
        for piece in self._pieces(name):
            digest.update(piece)
            if target is not None:
                target.write(piece)
        if digest.hexdigest() != file.sha256:
            raise DataError(f"{self.path.name}: {name} is not what was packed: its hash differs.")

    def _pieces(self, name: str) -> Iterator[bytes]:
        with _in_one_line(self.path), self.archive.open(name) as source:
            while piece := source.read(CHUNK_BYTES):
                yield piece


@contextmanager
def opened(path: Path) -> Generator[Parcel]:
    """A parcel to read; whatever is wrong with it is said in one line."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    with ExitStack() as stack:
        with _in_one_line(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            _check_entries(archive.infolist(), path.stat().st_size)
            manifest = _read_manifest(archive)
            _check_files(manifest, archive.infolist())
        yield Parcel(path, manifest, archive)


@contextmanager
def _in_one_line(path: Path) -> Generator[None]:
    try:
        yield
    except UNREADABLE as error:
        said = f"{path.name} is no whole parcel ({shown(str(error), 80)}). Pack or copy it anew."
        raise DataError(said) from error
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error


def _check_entries(infos: Sequence[zipfile.ZipInfo], file_size: int) -> None:
    """Bounds and names, before anything is read."""
    if len(infos) > MOST_FILES:
        raise DataError(f"it holds {len(infos):,} files, where {MOST_FILES:,} are the most.")
    if len({info.filename.casefold() for info in infos}) < len(infos):
        raise DataError("two files in it have the same name.")
    for info in infos:
        _check_name(info.filename)
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise DataError(f"{info.filename} in it is a link or no plain file.")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise DataError(f"{info.filename} in it is compressed or encrypted; parcels are not.")
    if sum(info.file_size for info in infos) > file_size:
        raise DataError("the files in it claim to be larger than it is.")


def _check_name(name: str) -> None:
    if not PATH.fullmatch(name) or ".." in name:
        raise DataError(f"{shown(name, 80)!r} in it is no name that a file of a run could have.")
    if Path(name).suffix not in SUFFIXES:
        raise DataError(f"{name} in it is of a kind that no run needs.")


def _read_manifest(archive: zipfile.ZipFile) -> Manifest:
    if MANIFEST not in archive.namelist():
        raise DataError(f"it is no parcel: there is no {MANIFEST} in it.")
    if archive.getinfo(MANIFEST).file_size > LIMITS.max_row_bytes:
        raise DataError(f"{MANIFEST} is longer than {LIMITS.max_row_bytes:,} bytes.")
    data = archive.read(MANIFEST)
    try:
        _check_form(parse_json(data, LIMITS))
        manifest = _MANIFEST.validate_json(data, strict=True)
    except RowError as error:
        raise DataError(f"{MANIFEST} {error.reason}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{MANIFEST}: {shown(place, 80)}: {first['msg']}.") from error
    _check_run(manifest.run)
    _check_models(manifest)
    return manifest


def _check_form(found: Any) -> None:
    form = found.get("form") if isinstance(found, dict) else None
    if form != FORM:
        raise DataError(
            f"it is of form {shown(str(form), 20)}, and this version reads form {FORM}. "
            "Install the version of Amenable that packed it."
        )


def _check_run(run: Run) -> None:
    if not RUN_ID.fullmatch(run.id):
        raise DataError(f"{shown(run.id)!r} is no name of a run.")
    if run.stage not in LESSONS:
        raise DataError(f"a run of {shown(run.stage)!r} cannot be carried.")
    if run.status not in FINISHED:
        raise DataError(f"run {run.id} was packed while it was {run.status}.")
    moments = (run.created_at, run.started_at, run.finished_at)
    if any(moment is not None and moment.tzinfo is None for moment in moments):
        raise DataError(f"a moment of run {run.id} is without its time zone.")
    read_config(STAGE_CONFIGS[run.stage], run.config)


def _check_models(manifest: Manifest) -> None:
    for model in manifest.models:
        entry = model.entry
        if not NAME.fullmatch(entry.name) or _is_unknown(entry):
            raise DataError(f"{shown(entry.name)!r} is no model of a library.")
        if entry.sha256 != hash_of({name: file.sha256 for name, file in model.files.items()}):
            raise DataError(f"the hash of {entry.name} is not that of its files.")
    names = [model.entry.name for model in manifest.models]
    if len(set(names)) < len(names):
        raise DataError("a model is named in it twice.")
    if manifest.run.inputs.get("model") not in (None, *names):
        raise DataError("the model that the run began with is not named in it.")
    made, run = manifest.made, manifest.run
    if made is None:
        is_whole = run.status != "done"
    else:
        is_whole = run.status == "done" and made.is_carried and made.entry.name == _output(run)
    if not is_whole:
        raise DataError(f"run {run.id} is {run.status}, and what is said of its model is not.")


def _output(run: Run) -> str:
    return run.outputs.get("model", "")


def _is_unknown(entry: ModelEntry) -> bool:
    return entry.kind not in KINDS or entry.chat_form not in FORMS


def _check_files(manifest: Manifest, infos: Sequence[zipfile.ZipInfo]) -> None:
    """Those that are named, and no others."""
    there = {info.filename: info.file_size for info in infos if info.filename != MANIFEST}
    named = {name: file.size for name, file in manifest.carried.items()}
    for name in sorted(there.keys() ^ named.keys()):
        raise DataError(
            f"{name} is missing." if name in named else f"{name} does not belong to it."
        )
    for name, size in named.items():
        if there[name] != size:
            raise DataError(f"{name} has {there[name]:,} bytes, and should have {size:,}.")
