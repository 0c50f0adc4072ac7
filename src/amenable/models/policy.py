"""A policy: a frozen backbone, the adapters on it, its tokenizer and chat form, together."""

# Shapes: N = tokens of a pack, R = scored rows, H = hidden width, V = vocabulary;
# K = branches, T = tokens of the longest with its prefix.

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from amenable.chat.encode import Encoder
from amenable.chat.template import chat_form
from amenable.chat.trees import Pack
from amenable.models.adapters import AdapterSet
from amenable.models.faults import first_line, is_out_of_memory
from amenable.models.four_bit import four_bit_layers, put_in_four_bits
from amenable.models.gated import use_lean_gates
from amenable.models.head import scored_log_probs
from amenable.models.norms import use_lean_norms
from amenable.models.recompute import recompute_layers
from amenable.models.tree_attention import READY, reads_trees, use_tree_attention
from amenable.models.vocabulary import Vocabulary
from amenable.records.errors import ModelError

INFO_FILE = "amenable.json"
Extent = Literal["adapter", "layers", "full"]
PLAIN_LOGITS = (("final_logit_softcapping", None), ("logits_scaling", 1), ("logit_scale", 1))
"""Settings that change what the head has multiplied, each with the value that changes nothing."""


def compute_dtype() -> torch.dtype:
    """bf16 where this machine multiplies it natively, else fp32; never fp16 (Gemma overflows)."""
    if torch.cuda.is_available():
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_native else torch.float32
    capability = torch.backends.cpu.get_cpu_capability()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # pyright: ignore[reportPrivateUsage]
    return torch.bfloat16 if has_bf16 and capability.startswith("AVX512") else torch.float32


def compute_device() -> torch.device:
    """The GPU where this build of torch can use one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_network(
    folder: Path, dtype: torch.dtype, *, in_four_bits: bool = False
) -> PreTrainedModel:
    """A frozen causal language model from safetensors; code in the folder is never run.

    In 4 bits it is to be trained in little memory: its layers keep little for backward, too.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model: there is no config.json in it.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no weights in safetensors form, the only one read here.")
    network = _read(folder, dtype)
    _refuse_bent_logits(network)
    network.requires_grad_(requires_grad=False)
    use_lean_norms(network)
    use_lean_gates(network)
    use_tree_attention(network)
    if in_four_bits:
        put_in_four_bits(network, compute_device())
        recompute_layers(network)
    cast("nn.Module", network).to(compute_device())
    return network.eval()


def _read(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        refuse_more_than_text(config)
        network = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except ModelError:
        raise
    except Exception as error:  # the native safetensors reader has its own class
        if is_out_of_memory(error):  # no damage: the same files would be brought anew in vain
            raise
        is_known = isinstance(error, OSError | ValueError | KeyError | RuntimeError)
        what = "cannot be loaded" if is_known else "is broken"
        raise ModelError(f"The model in {folder} {what}: {first_line(error)}") from error
    return cast("PreTrainedModel", network)


def refuse_more_than_text(config: PreTrainedConfig) -> None:
    """A model of texts and pictures keeps its sizes, and its layers, where nobody here looks."""
    if config.get_text_config() is not config:
        raise ModelError(
            f"Models of the kind {config.model_type!r} take more than text; only text-only models "
            "are supported here."
        )


def _refuse_bent_logits(network: PreTrainedModel) -> None:
    """Our head multiplies and nothing more: it would train another model, and say nothing."""
    config = network.config.get_text_config()
    bent = [
        name for name, plain in PLAIN_LOGITS if getattr(config, name, plain) not in (plain, None)
    ]
    if getattr(network.get_output_embeddings(), "bias", None) is not None:
        bent.append("a bias of the head")
    if bent:
        raise ModelError(
            f"Models of the kind {config.model_type!r} bend their logits ({bent[0]}), which is "
            "not supported here. Gemma 3, Llama, Qwen and SmolLM families are."
        )


@dataclass(frozen=True)
class Policy:
    """`network` is shared by all adapters on it; `encoder` speaks the chat form of its family."""

    network: PreTrainedModel
    vocabulary: Vocabulary
    adapters: AdapterSet
    folder: Path

    @classmethod
    def load(
        cls, folder: Path, dtype: torch.dtype | None = None, *, in_four_bits: bool = False
    ) -> "Policy":
        network = load_network(folder, dtype or compute_dtype(), in_four_bits=in_four_bits)
        vocabulary = Vocabulary(network)
        return cls(network, vocabulary, AdapterSet(network, vocabulary), folder)

    @staticmethod
    def read_info(folder: Path) -> dict[str, Any]:
        """What the library noted beside the weights; nothing for a folder from elsewhere."""
        path = folder / INFO_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def encoder(self, form_name: str) -> Encoder:
        config = self.network.config
        eos = config.eos_token_id
        encoder = Encoder.load(
            self.folder,
            chat_form(form_name),
            bos=config.bos_token_id,
            # Gemma must have it, though a tokenizer unpacked from GGUF does not say so.
            always_begins=config.model_type.startswith("gemma"),
            end_of_text=eos[0] if isinstance(eos, list) else eos,
        )
        self._refuse_foreign_tokens(encoder)
        return encoder

    def _refuse_foreign_tokens(self, encoder: Encoder) -> None:
        """Tokens that text is cut into; of added ones some stand for pictures, and have no row."""
        text = encoder.tokenizer.get_vocab(with_added_tokens=False).values()
        wanted, rows = max((*text, *encoder.stop_ids), default=-1) + 1, len(self.head_weight)
        if wanted > rows:
            raise ModelError(
                f"The tokenizer in {self.folder} knows {wanted:,} tokens, its network only "
                f"{rows:,}: they are not of one model. Bring the folder anew from its source."
            )

    @property
    def head_weight(self) -> Tensor:
        return self.vocabulary.head

    @property
    def device(self) -> torch.device:
        return self.head_weight.device

    @property
    def backbone(self) -> nn.Module:
        return self.network.base_model

    @property
    def num_positions(self) -> int:
        """Tokens that it was made to read at once."""
        return self.network.config.max_position_embeddings

    @property
    def num_parameters(self) -> int:
        in_four_bits = sum(layer.num_weights for layer in four_bit_layers(self.network))
        return in_four_bits + sum(parameter.numel() for parameter in self.network.parameters())

    def using(self, adapter: str | None) -> AbstractContextManager[None]:
        return self.adapters.using(adapter)

    def hidden(self, pack: Pack) -> Tensor:
        """Last hidden states [N, H] of a pack's tokens."""
        if not reads_trees(self.network):
            return self.hidden_apart(pack)
        return cast(
            "Tensor",
            self.backbone(
                input_ids=pack.tokens_N[None].to(self.device),
                position_ids=pack.positions_N[None].to(self.device),
                attention_mask=READY.to(self.device),
                spans=pack.spans,
                use_cache=False,
            )[0][0],
        )

    def hidden_apart(self, pack: Pack) -> Tensor:
        """The same by right-padded rows, one a branch, each with the prefix to itself.

        Right padding needs no mask: a causal model's real tokens never look at what follows them.
        """
        tokens_KT, at_N = pack.rows_apart()
        hidden_KTH = self.backbone(input_ids=tokens_KT.to(self.device), use_cache=False)[0]
        return cast("Tensor", hidden_KTH.flatten(0, 1)[at_N.to(self.device)])

    def sources(self, pack: Pack) -> Tensor:
        """Hidden states [R, H] that a pack's targets are predicted from."""
        hidden_NH = self.hidden(pack)
        return hidden_NH[pack.sources_R.to(hidden_NH.device)]

    def scored(self, pack: Pack) -> Tensor:
        """Log-probability of each of a pack's targets [R], in nats, fp32."""
        hidden_RH = self.sources(pack)
        return self.log_probs(hidden_RH, pack.targets_R.to(hidden_RH.device))

    def log_probs(self, hidden_RH: Tensor, targets_R: Tensor) -> Tensor:
        """Log-probability of each target token, in nats, fp32."""
        ids_M, rows_MH = self.adapters.active_markers()
        return scored_log_probs(
            hidden_RH, self.head_weight, targets_R, ids_M, rows_MH, self.vocabulary.head_sums
        )

    def is_adapter(self, name: str) -> bool:
        """Whether what was trained is a small update; else whole layers were."""
        return self.adapters.shapes[name].rank > 0

    def trained_parameters(self, name: str, extent: Extent) -> dict[str, nn.Parameter]:
        """What an optimizer changes: the adapter with its marker rows, and more if asked.

        "layers" leaves the embedding frozen but for the marker rows: it is most of a small model,
        and a few demonstrations teach it nothing.
        """
        found = self.adapters.parameters(name)
        if extent != "adapter":
            vocabulary = {id(each) for each in self.vocabulary.parameters().values()}
            found |= {
                path: parameter
                for path, parameter in self.network.named_parameters()
                if extent == "full" or id(parameter) not in vocabulary
            }
        return found
