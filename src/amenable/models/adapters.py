"""Adapters in PEFT's format: low-rank updates beside frozen weights, and trained marker rows.

Injection and files are PEFT's, so that other programs load what is trained here. The marker rows
are applied by a hook instead of PEFT's own layer, which copies the whole embedding in every
forward pass (335 MB for Gemma 3 270M); `peft_state` writes them in PEFT's names.
"""

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from amenable.models.low_rank import use_low_rank
from amenable.models.vocabulary import Vocabulary
from amenable.records.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Generator

ADAPTER_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."


def _key(name: str) -> str:
    """The name as torch takes it for a module's: without dots, and no two names alike.

    >>> _key("Llama-3.2-1B-instruct-1")
    'Llama-3%2E2-1B-instruct-1'
    """
    return name.replace("%", "%25").replace(".", "%2E")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterShape:
    rank: int
    alpha: float
    marker_ids: tuple[int, ...]


class MarkerRows(nn.Module):
    """Rows that stand in for the frozen ones of some tokens, in the embedding and in the head.

    `head_rows_MH` is `rows_MH` itself where the head is tied to the embedding.
    """

    def __init__(self, ids: Sequence[int], embedding_VH: Tensor, head_VH: Tensor) -> None:
        super().__init__()
        self.ids_M = torch.tensor(list(ids), dtype=torch.int64)
        self.rows_MH = nn.Parameter(embedding_VH[self.ids_M].detach().clone())
        self.head_rows_MH = self.rows_MH
        if head_VH is not embedding_VH:
            self.head_rows_MH = nn.Parameter(head_VH[self.ids_M].detach().clone())

    def embed(self, tokens: Tensor, embedded: Tensor, scale: float) -> Tensor:
        for position, id_ in enumerate(self.ids_M.tolist()):
            row_H = self.rows_MH[position] * scale
            embedded = torch.where((tokens == id_)[..., None], row_H.to(embedded.dtype), embedded)
        return embedded


class AdapterSet:
    """All adapters on one network; at most one is in use at a time, none gives the bare base."""

    def __init__(self, network: nn.Module, vocabulary: Vocabulary) -> None:
        self.network = network
        self._vocabulary = vocabulary
        self.active: str | None = None
        self.markers: dict[str, MarkerRows] = {}
        self.shapes: dict[str, AdapterShape] = {}
        self._layers: dict[str, Any] = {}  # those that carry adapters, by path
        self._bare: dict[str, nn.Parameter] = {}
        self._folded: dict[str, dict[str, nn.Parameter]] = {}
        embedding = cast("Any", network).get_input_embeddings()
        embedding.register_forward_hook(self._replace_marker_rows)

    def _replace_marker_rows(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        rows = self.markers.get(self.active or "")
        return output if rows is None else rows.embed(args[0], output, self._vocabulary.scale)

    def add(self, name: str, shape: AdapterShape, seed: int = 0) -> None:
        """A new adapter that changes nothing yet: B is zero, marker rows are the base's own."""
        config = peft.LoraConfig(
            r=shape.rank,
            lora_alpha=cast("int", shape.alpha),
            lora_dropout=0.0,
            target_modules="all-linear",
            exclude_modules=["lm_head"],
            bias="none",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, self.network, _key(name))
        # Kept by PEFT for its own lists of adapters; it would warn of it at the next adapter.
        vars(self.network).pop("peft_config", None)
        self._layers = {
            path: module
            for path, module in self.network.named_modules()
            if isinstance(module, LoraLayer)
        }
        dtype = self._vocabulary.embedding.dtype
        for layer in self._layers.values():
            use_low_rank(layer)
            for part in (layer.lora_A[_key(name)], layer.lora_B[_key(name)]):
                part.to(dtype)
        self._add_markers(name, shape)

    def add_markers_only(self, name: str, marker_ids: Sequence[int]) -> None:
        """Marker rows without low-rank updates, beside layers that are trained whole."""
        self._add_markers(name, AdapterShape(rank=0, alpha=1.0, marker_ids=tuple(marker_ids)))

    def _add_markers(self, name: str, shape: AdapterShape) -> None:
        ids = list(shape.marker_ids)
        self.markers[name] = MarkerRows(ids, self._vocabulary.embedding, self._vocabulary.head)
        self.shapes[name] = shape
        self.use(name)

    def use(self, name: str | None) -> None:
        """Switch to one adapter, or to the bare base."""
        if name is not None and name not in self.shapes:
            raise ModelError(f"The adapter {name!r} is not loaded.")
        if name == self.active:
            return
        is_applied = name is not None and name not in self._folded
        weights = self._folded.get(name or "", self._bare)
        for path, layer in self._layers.items():
            layer.enable_adapters(is_applied)
            if name is not None and is_applied:
                layer.set_adapter(_key(name))
            if weights:
                layer.get_base_layer().weight = weights[path]
        self.active = name

    def fold(self, name: str) -> None:
        """From now on this adapter is used as whole weights: for replies, never for training.

        They are the weights of the merged export, to the bit, so both give the same replies; and
        a token costs two small products fewer in every layer. Embedding and head stay shared.
        """
        with self.using(None):
            self._bare = {
                path: layer.get_base_layer().weight for path, layer in self._layers.items()
            }
            self._folded[name] = {
                path: nn.Parameter(weight, requires_grad=False)
                for path, weight in self.folded_weights(name).items()
            }

    def folded_weights(self, name: str) -> dict[str, Tensor]:
        """By path of the layer: W + (alpha / rank) B A, added in fp32 and rounded once."""
        key = _key(name)
        with self.using(None), torch.no_grad():
            found: dict[str, Tensor] = {}
            for path, layer in self._layers.items():
                if key in layer.lora_A:
                    weight = cast("Tensor", layer.get_base_layer().weight)
                    update = layer.lora_B[key].weight.float() @ layer.lora_A[key].weight.float()
                    if layer.fan_in_fan_out:  # GPT-2 keeps its weights the other way round
                        update = update.T
                    folded = weight.float() + layer.scaling[key] * update
                    found[path] = folded.to(weight.dtype)
        return found

    @contextmanager
    def using(self, name: str | None) -> "Generator[None]":
        before = self.active
        self.use(name)
        try:
            yield
        finally:
            self.use(before)

    def active_markers(self) -> tuple[Tensor, Tensor]:
        """Ids [M] and the head's rows [M, H] of the adapter in use; M is 0 for the bare base."""
        rows = self.markers.get(self.active or "")
        if rows is None:
            return torch.empty(0, dtype=torch.int64), self._vocabulary.head[:0]
        return rows.ids_M, rows.head_rows_MH

    def with_markers(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Each frozen matrix that has marker rows, and a copy of it with this adapter's rows."""
        rows = self.markers[name]
        found: list[tuple[Tensor, Tensor]] = []
        pairs = [
            (self._vocabulary.embedding, rows.rows_MH),
            (self._vocabulary.head, rows.head_rows_MH),
        ]
        for weight_VH, rows_MH in pairs[: 1 if self._vocabulary.is_tied else 2]:
            copy_VH = weight_VH.detach().clone()
            copy_VH[rows.ids_M] = rows_MH.detach().to(copy_VH.dtype)
            found.append((weight_VH, copy_VH))
        return found

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The trained tensors by their name in PEFT's file."""
        found: dict[str, nn.Parameter] = {}
        for path, layer in self._layers.items():
            if _key(name) in layer.lora_A:
                for part in ("lora_A", "lora_B"):
                    found[f"{PREFIX}{path}.{part}.weight"] = getattr(layer, part)[_key(name)].weight
        if self.shapes[name].marker_ids:
            rows = self.markers[name]
            for path, rows_MH in zip(
                self._marked_paths(), (rows.rows_MH, rows.head_rows_MH), strict=False
            ):
                found[f"{PREFIX}{path}.token_adapter.trainable_tokens_delta"] = rows_MH
        return found

    def _marked_paths(self) -> list[str]:
        """Where marker rows stand: the embedding, and the head if it has weights of its own."""
        network = cast("Any", self.network)
        marked = [network.get_input_embeddings(), network.get_output_embeddings()]
        paths = {id(module): path for path, module in self.network.named_modules()}
        return [paths[id(module)] for module in marked[: 1 if self._vocabulary.is_tied else 2]]

    def save(self, name: str, folder: Path, base_name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shape = self.shapes[name]
        tensors = {key: value.detach().contiguous() for key, value in self.parameters(name).items()}
        save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
        config: dict[str, object] = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_name,
            "r": shape.rank,
            "lora_alpha": shape.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted(self._target_names()),
            "inference_mode": True,
        }
        if shape.marker_ids:
            # A plain list means the embedding and what is tied to it.
            config["trainable_token_indices"] = (
                list(shape.marker_ids)
                if self._vocabulary.is_tied
                else {
                    path.rsplit(".", 1)[-1]: list(shape.marker_ids) for path in self._marked_paths()
                }
            )
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def _target_names(self) -> set[str]:
        return {path.rsplit(".", 1)[-1] for path in self._layers}

    def load(self, name: str, folder: Path) -> None:
        """Put a saved adapter beside the others; refuse one that does not fit this network."""
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            tensors = load_file(folder / ADAPTER_FILE)
            shape = _shape_of(config)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"The adapter in {folder} cannot be read: {error}") from error
        self.add(name, shape)
        try:
            self.copy_in(name, tensors)
        except ModelError:
            self.remove(name)  # half an adapter must not be found under this name
            raise

    def remove(self, name: str) -> None:
        """Take an adapter off the network; the bare base is in use then."""
        self.use(None)
        for layer in self._layers.values():
            layer.set_adapter([])  # else PEFT takes another one into use
            layer.delete_adapter(_key(name))
        self._folded.pop(name, None)
        del self.markers[name], self.shapes[name]

    def copy_in(self, name: str, tensors: dict[str, Tensor]) -> None:
        parameters = self.parameters(name)
        if parameters.keys() != tensors.keys():
            odd = sorted(parameters.keys() ^ tensors.keys())[0]
            raise ModelError(f"This adapter belongs to another base model ({odd} does not match).")
        with torch.no_grad():
            for key, parameter in parameters.items():
                if parameter.shape != tensors[key].shape:
                    raise ModelError(f"This adapter's {key} has another shape than its base's.")
                if not torch.isfinite(tensors[key]).all():
                    raise ModelError(f"This adapter's {key} holds numbers that are not finite.")
                parameter.copy_(tensors[key])


def _shape_of(config: dict[str, Any]) -> AdapterShape:
    indices = config.get("trainable_token_indices") or []
    if isinstance(indices, dict):
        indices = next(iter(indices.values()))
    return AdapterShape(
        rank=int(config["r"]), alpha=float(config["lora_alpha"]), marker_ids=tuple(indices)
    )
