"""The peers: which version, from which packages, each in an environment of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.training.rows import Column, Row

WORKERS = Path(__file__).parent / "workers"
TORCH = "torch==2.13.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    name: str
    version: str
    pins: tuple[str, ...]
    torch: str = TORCH
    """Installed first and held: a peer's open range would bring another build."""
    bare: tuple[str, ...] = ()
    """Installed without what they ask for: that stands among the pins, but for what needs CUDA."""
    without: tuple[str, ...] = ()
    """Taken out again: builds that need CUDA libraries, for what no text needs. Where the peer
    imports one all the same, an empty module stands in for it."""


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            name="trl",
            version="1.16.0",
            pins=("trl==1.16.0", "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0"),
        ),
        Peer(
            name="llamafactory",
            version="0.9.5",
            pins=(
                "llamafactory==0.9.5",
                "transformers==5.6.0",
                "trl==0.24.0",
                "accelerate==1.11.0",
                "peft==0.18.1",
                "datasets==4.0.0",
            ),
            without=("torchvision", "torchaudio"),
        ),
        Peer(
            name="unsloth",
            version="2026.10.9",
            pins=(
                "trl==1.15.0",
                "transformers==5.17.0",
                "accelerate==1.15.0",
                "datasets==4.8.5",
                "peft==0.21.2",
                "torchao==0.18.0",
                "cut-cross-entropy==25.1.1",
                "einops==0.8.2",
                "hf-transfer==0.1.9",
                "json5==0.17.3",
                "msgspec==0.22.0",
                "protobuf==7.36.2",
                "psutil==7.2.2",
                "sentencepiece==0.2.3",
                "structlog==26.1.0",
                "tyro==1.0.17",
            ),
            # They ask for xformers and torchvision, which no processor needs, and for a certifi
            # that is newer than the registry's.
            bare=("unsloth==2026.10.9", "unsloth_zoo==2026.10.9"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A cell of the table."""

    row: Row
    model: str
    peer: Peer
    column: Column

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.row.name, self.model, self.peer.name, self.column


def python_of(peer: Peer, folder: Path) -> Path:
    """The peer's interpreter; its environment is made from the registry the first time.

    `TORCH_INDEX` names where the CPU build of torch is, as for `make env`.
    """
    home = folder / peer.name
    python = home / "bin" / "python"
    ready = home / ".ready"
    wanted = "\n".join(
        (peer.torch, *peer.pins, *peer.bare, *(f"without {each}" for each in peer.without))
    )
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return python
    print(f"… an environment for {peer.name} {peer.version}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    index = os.environ.get("TORCH_INDEX", "")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *(["--index-url", index] if index else []), peer.torch], check=True)
    subprocess.run([*install, peer.torch, *peer.pins], check=True)
    if peer.bare:
        subprocess.run([*install, "--no-deps", *peer.bare], check=True)
    if peer.without:
        subprocess.run([python, "-m", "pip", "uninstall", "--yes", *peer.without], check=True)
    ready.write_text(wanted, encoding="utf-8")
    return python
