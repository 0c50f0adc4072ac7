"""The rows of the table: what is trained, on texts of which lengths, against whom."""

from dataclasses import dataclass
from typing import Literal

Method = Literal["finetune", "dpo", "kto", "orpo", "reward"]
Column = Literal["default", "tuned"]
COLUMNS: tuple[Column, ...] = ("tuned", "default")
GEMMA, SMOLLM2 = "gemma-3-270m", "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens, log-normal about a median; both ends are cut."""

    median: int
    spread: float = 0.5
    least: int = 8
    most: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    title: str
    method: Method
    models: tuple[str, ...]
    peers: tuple[str, ...]
    prompt: Lengths | None
    """None: whole texts, every token of which is learned."""
    reply: Lengths
    num_replies: int = 1
    """Of one prompt; all orders between them are known, the first is the best."""
    prompts_per_step: int = 2
    must: tuple[float, ...] = ()
    """The ratio that is to be reached against the tuned peer, by model."""


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            name="sft-completion-only",
            title="Finetuning on replies",
            method="finetune",
            models=(GEMMA, SMOLLM2),
            peers=("trl", "llamafactory", "unsloth"),
            prompt=Lengths(median=110, spread=0.6),
            reply=Lengths(median=50, spread=0.6),
            prompts_per_step=4,
            must=(2.0, 1.2),
        ),
        Row(
            name="sft-full-text",
            title="Whole texts of many lengths",
            method="finetune",
            models=(SMOLLM2,),
            peers=("trl", "unsloth"),
            prompt=None,
            reply=Lengths(median=180, spread=0.9, least=32),
            prompts_per_step=4,
        ),
        Row(
            name="dpo-long-prompts",
            title="DPO, long prompts",
            method="dpo",
            models=(GEMMA, SMOLLM2),
            peers=("trl", "llamafactory"),
            prompt=Lengths(median=256, spread=0.3),
            reply=Lengths(median=64, spread=0.3),
            num_replies=2,
            must=(3.0, 1.7),
        ),
        Row(
            name="dpo-long-answers",
            title="DPO, long answers",
            method="dpo",
            models=(GEMMA, SMOLLM2),
            peers=("trl", "llamafactory"),
            prompt=Lengths(median=48, spread=0.3),
            reply=Lengths(median=192, spread=0.3),
            num_replies=2,
            must=(1.5, 1.15),
        ),
        Row(
            name="kto",
            title="KTO",
            method="kto",
            models=(GEMMA, SMOLLM2),
            peers=("trl",),
            prompt=Lengths(median=110),
            reply=Lengths(median=80),
            prompts_per_step=4,
            must=(1.5, 1.15),
        ),
        Row(
            name="orpo",
            title="ORPO",
            method="orpo",
            models=(GEMMA, SMOLLM2),
            peers=("trl",),
            prompt=Lengths(median=110),
            reply=Lengths(median=80),
            num_replies=2,
            must=(1.5, 1.15),
        ),
        Row(
            name="reward-pairs",
            title="Reward model, pairs",
            method="reward",
            models=(GEMMA, SMOLLM2),
            peers=("trl", "llamafactory"),
            prompt=Lengths(median=192, spread=0.3),
            reply=Lengths(median=64, spread=0.3),
            num_replies=2,
            must=(1.35, 1.35),
        ),
        Row(
            name="reward-k4",
            title="Reward model, rankings of 4",
            method="reward",
            models=(GEMMA, SMOLLM2),
            peers=("trl",),
            prompt=Lengths(median=192, spread=0.3),
            reply=Lengths(median=64, spread=0.3),
            num_replies=4,
            prompts_per_step=1,
            must=(5.0, 5.0),
        ),
        Row(
            name="reward-k9",
            title="Reward model, rankings of 9",
            method="reward",
            models=(GEMMA, SMOLLM2),
            peers=("trl",),
            prompt=Lengths(median=192, spread=0.3),
            reply=Lengths(median=64, spread=0.3),
            num_replies=9,
            prompts_per_step=1,
            must=(15.0, 15.0),
        ),
    )
}
