"""The knobs of every stage: type, default and one sentence each, readable without torch."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from amenable.records.errors import ConfigError

TooLong = Literal["cut", "leave_out"]
NUM_PROOF_PAIRS = 12
"""Blind pairs that prove an improvement; so many prompts are left aside for them."""
LEAST_COMPARISONS = 20
"""That order two replies: what a reward model takes at least."""


def _at_least(field_name: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(field_name, value, must=f"be at least {least}")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    rank: int = 16
    """Width of the trained low-rank update; more learns more and takes more memory."""
    alpha: float = 32.0
    """Strength of the update; it is multiplied by alpha / rank."""

    def __post_init__(self) -> None:
        _at_least("rank", self.rank, 1)
        if self.alpha <= 0:
            raise ConfigError("alpha", self.alpha, must="be above 0")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What the training loop itself needs, whatever the method."""

    num_epochs: int = 3
    """How often every example is seen."""
    tokens_per_step: int = 3072
    """Tokens that one optimizer update learns from, at most."""
    tokens_per_batch: int = 1024
    """Tokens in memory at once; smaller needs less memory."""
    learning_rate: float = 5e-4
    """Size of each update at its largest."""
    warmup_share: float = 0.05
    """Share of the steps during which the learning rate rises."""
    weight_decay: float = 0.0
    """Pull of the trained weights towards zero."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this."""
    checkpoint_seconds: float = 60.0
    """How often the state is saved, so that a killed run goes on from there."""

    def __post_init__(self) -> None:
        _at_least("num_epochs", self.num_epochs, 1)
        _at_least("tokens_per_batch", self.tokens_per_batch, 64)
        _at_least("tokens_per_step", self.tokens_per_step, 64)
        _at_least("checkpoint_seconds", self.checkpoint_seconds, 0)
        _at_least("weight_decay", self.weight_decay, 0)
        for name in ("learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, getattr(self, name), must="be above 0")
        if not 0 <= self.warmup_share < 1:
            raise ConfigError("warmup_share", self.warmup_share, must="lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    accept_licence: bool = False
    """Say that you have read the licence terms and accept them."""


@dataclass(frozen=True, kw_only=True)
class ShapeConfig:
    vocabulary: int = 8192
    """Tokens that the tokenizer learns, at most; few texts give fewer."""
    hidden: int = 256
    """Width of every layer."""
    layers: int = 6
    """How many layers stand one on the other."""
    heads: int = 4
    """Attention heads of a layer; each gets an even share of the width."""

    def __post_init__(self) -> None:
        _at_least("vocabulary", self.vocabulary, 260)  # every byte, and what is no text
        _at_least("layers", self.layers, 1)
        _at_least("heads", self.heads, 1)
        if self.hidden < 1 or self.hidden % (2 * self.heads):
            raise ConfigError("hidden", self.hidden, must=f"divide by {2 * self.heads}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    name: str | None = None
    """What the new base is called; left out, after its data or the base it goes on from."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """Size of a new model; a base that goes on learning keeps its own."""
    context: int = 512
    """Tokens that are read at once; longer texts are cut into windows, and nothing is lost."""
    held_out_share: float = 0.05
    """Share of the texts that is measured on and never learned from; at least one text is."""
    rate_share: float = 0.02
    """A base that goes on learning takes this share of the learning rate: it has much to lose."""
    limit: int = 0
    """Use only so many of the texts, drawn by the seed; 0 uses all."""
    fit: FitConfig = field(
        # Few texts make few steps, so they are small, and large in rate (docs/experiments.md).
        default_factory=lambda: FitConfig(num_epochs=1, tokens_per_step=2048, learning_rate=3e-3)
    )
    """How long and how fast it learns."""

    def __post_init__(self) -> None:
        _at_least("context", self.context, 16)
        _at_least("limit", self.limit, 0)
        if not 0 < self.held_out_share <= 0.5:
            raise ConfigError("held_out_share", self.held_out_share, must="lie in (0, 0.5]")
        if not 0 < self.rate_share <= 1:
            raise ConfigError("rate_share", self.rate_share, must="lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    method: Literal["lora", "qlora", "layers", "full"] = "lora"
    """lora trains a small update beside frozen weights; qlora the same with the frozen layers in
    4 bits, for less memory and more time; layers trains every layer and leaves the vocabulary;
    full trains all there is."""
    train_marker_rows: bool = True
    """Also train the rows of the chat markers, which a base model never saw (full trains all)."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Size of the small update."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How long and how fast it learns."""
    max_tokens: int = 512
    """Of an example, the prompt among them; the run says how many have more."""
    too_long: TooLong = "cut"
    """What becomes of an example with more: cut loses its end, leave_out teaches nothing."""
    limit: int = 0
    """Use only the first so many demonstrations, after shuffling; 0 uses all."""
    turns: Literal["all", "last"] = "all"
    """all learns from every reply of a demonstration; last only from the one that ends it."""

    def __post_init__(self) -> None:
        _at_least("max_tokens", self.max_tokens, 16)
        _at_least("limit", self.limit, 0)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    purpose: Literal["improve", "proof"] = "improve"
    """improve: two replies of one version to judge; proof: blind pairs of two versions."""
    against: str | None = None
    """The other version, for proof."""
    num_prompts: int = 200
    """How many prompts get a pair of replies."""
    max_new_tokens: int = 128
    """Longer replies are cut off."""
    temperature: float = 0.9
    """How freely replies are drawn; 0 always takes the likeliest token."""
    top_p: float = 0.95
    """Draw only from the likeliest tokens that share this much probability."""

    def __post_init__(self) -> None:
        _at_least("num_prompts", self.num_prompts, 1)
        _at_least("max_new_tokens", self.max_new_tokens, 1)
        _at_least("temperature", self.temperature, 0)
        if not 0 < self.top_p <= 1:
            raise ConfigError("top_p", self.top_p, must="lie in (0, 1]")


PreferenceLoss = Literal["dpo", "dpo_per_token", "ipo", "orpo", "simpo", "kto"]


class Usual(NamedTuple):
    """What a loss is run with where nothing else is asked for."""

    beta: float
    """As in its paper."""
    sft_weight: float
    """Of imitation beside it."""


USUAL: dict[PreferenceLoss, Usual] = {
    # DPO's imitation was measured here (docs/experiments.md); the rest is what the papers use.
    "dpo": Usual(0.1, 3.0),
    "dpo_per_token": Usual(5.0, 3.0),
    "ipo": Usual(0.5, 0.0),
    "orpo": Usual(0.1, 1.0),
    "simpo": Usual(2.0, 0.0),
    "kto": Usual(0.1, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    loss: PreferenceLoss = "dpo"
    """How a choice becomes a loss: dpo and ipo compare with the parent (dpo_per_token: by the
    token), orpo and simpo with nothing, kto takes every reply by itself as good or bad."""
    beta: float | None = None
    """How firmly to stay near the parent model, larger stays nearer (orpo: weight of the odds,
    simpo: sharpness); left out, what is usual for the loss (dpo 0.1)."""
    margin: float = 1.0
    """simpo only: by how much the chosen reply is to win, times beta."""
    flip_rate: float = 0.2
    """Assumed share of choices that are mistakes, at least 0 and below 0.5; kto assumes none, nor
    does a choice with a weight of its own."""
    flips: Literal["conservative", "robust"] = "conservative"
    """conservative believes no choice wholly; robust corrects the loss for the mistakes."""
    sft_weight: float | None = None
    """Weight of plain imitation of the chosen replies beside the loss; left out, what is usual
    for the loss (dpo 3)."""

    def __post_init__(self) -> None:
        if self.beta is not None and self.beta <= 0:
            raise ConfigError("beta", self.beta, must="be above 0 (0.1 is a usual start)")
        if not 0 <= self.flip_rate < 0.5:
            raise ConfigError("flip_rate", self.flip_rate, must="lie in [0, 0.5)")
        _at_least("margin", self.margin, 0)
        _at_least("sft_weight", self.sft_weight or 0, 0)
        if self.loss == "kto" and self.sft_weight:
            raise ConfigError("sft_weight", self.sft_weight, must="be 0 with kto")

    def usual(self) -> Usual:
        """What was given, and else what is usual for the loss."""
        usual = USUAL[self.loss]
        return Usual(
            usual.beta if self.beta is None else self.beta,
            usual.sft_weight if self.sft_weight is None else self.sft_weight,
        )


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    """What is learned from a choice."""
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(num_epochs=1, learning_rate=5e-5, warmup_share=0.1)
    )
    """How long and how fast it learns."""
    max_tokens: int = 512
    """Of a reply with its prompt; the run says how many have more."""
    too_long: TooLong = "cut"
    """What becomes of a reply with more: cut loses its end, leave_out teaches nothing."""

    def __post_init__(self) -> None:
        _at_least("max_tokens", self.max_tokens, 16)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    num_heads: int = 4
    """How many scores are learned side by side; where they differ, too little was judged."""
    centring: float = 0.01
    """Pull of the scores towards zero, which choices alone leave free."""
    held_out_share: float = 0.2
    """Share of the prompts that it does not learn from, to measure how often it is right."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Size of the small update on a model that has none; a version's own is trained on."""
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(num_epochs=1, tokens_per_step=1024, warmup_share=0.1)
    )
    """How long and how fast it learns."""
    max_tokens: int = 512
    """Of a reply with its prompt; the run says how many have more."""
    too_long: TooLong = "cut"
    """What becomes of a reply with more: cut loses its end, leave_out teaches nothing."""

    def __post_init__(self) -> None:
        _at_least("num_heads", self.num_heads, 1)
        _at_least("centring", self.centring, 0)
        _at_least("max_tokens", self.max_tokens, 16)
        if not 0 < self.held_out_share < 1:
            raise ConfigError("held_out_share", self.held_out_share, must="lie in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    num_prompts: int = 0
    """Evaluation prompts used; 0 uses all."""
    max_new_tokens: int = 128
    """Longer replies are cut off."""
    num_text_tokens: int = 20_000
    """Plain text read for perplexity."""

    def __post_init__(self) -> None:
        _at_least("num_prompts", self.num_prompts, 0)
        _at_least("max_new_tokens", self.max_new_tokens, 1)
        _at_least("num_text_tokens", self.num_text_tokens, 256)


StageConfig = (
    PrepareConfig
    | PretrainConfig
    | FinetuneConfig
    | SampleConfig
    | AlignConfig
    | RewardConfig
    | CompareConfig
)
STAGE_CONFIGS: dict[str, type[StageConfig]] = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "sample": SampleConfig,
    "align": AlignConfig,
    "reward": RewardConfig,
    "compare": CompareConfig,
}


def recorded(config: StageConfig) -> dict[str, Any]:
    """As a run keeps it: what was left to be usual is written out, for that may change."""
    if isinstance(config, AlignConfig):
        known = replace(config.preference, **config.preference.usual()._asdict())
        config = replace(config, preference=known)
    return asdict(config)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    form: Literal["merged", "adapter"] = "merged"
    """merged: one folder that any program loads; adapter: the small update alone (PEFT)."""
