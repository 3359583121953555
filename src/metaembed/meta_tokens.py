"""The backbone with meta tokens: appends them to every item and returns their last states.

Meta tokens are ordinary vocabulary rows, so a trained model is an ordinary checkpoint. A query is
read as `[item, M_q]`, a candidate as `[item, M_q, M_c]` (paper, section on Meta Tokens: both sets
stand at the end, the query's first). Only the states of M_q (query) or M_c (candidate) come out.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from sentence_transformers.base.modules import Transformer
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils.peft_utils import find_adapter_config_file

from metaembed.backbones import PER_TOKEN_KEYS, fit_picture, picture_limits, resolve_backbone
from metaembed.errors import ItemError, ModelError
from metaembed.items import Item, items_of
from metaembed.windows import windows as windows_of

MIN_ITEM_TOKENS = 8
SPECIAL_TOKENS = 2
"""Added around a text by the tokenizers of text encoders; chat templates are not counted."""


class MetaTokenTransformer(Transformer):
    """A backbone of the library's `Transformer` that ends every item in meta tokens.

    `forward` yields `token_embeddings` of shape (B, r, hidden), the last-layer states at the meta
    tokens of the row's side, and an `attention_mask` of ones (B, r): there is nothing to mask.
    """

    config_keys: ClassVar[list[str]] = [
        *Transformer.config_keys,
        "num_query_tokens",
        "num_candidate_tokens",
        "windows",
    ]
    query_length: int | None
    document_length: int | None
    processing_kwargs: dict[str, Any]
    forward_kwargs: ClassVar[set[str]] = {"num_vectors"}

    def __init__(
        self,
        model_name_or_path: str,
        *,
        num_query_tokens: int = 16,
        num_candidate_tokens: int = 64,
        windows: Mapping[str, Sequence[int]] | None = None,
        max_visual_tokens: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name_or_path, **kwargs)
        # Flattened batches have no rows to append to; padding is at most a batch's spread.
        self.unpad_inputs = False
        self.num_query_tokens = num_query_tokens
        self.num_candidate_tokens = num_candidate_tokens
        self.windows = None if windows is None else {k: list(v) for k, v in windows.items()}
        if self.tokenizer is None:
            raise ModelError(
                f"{model_name_or_path} has no tokenizer, so it cannot carry meta tokens; "
                "choose a backbone that reads text."
            )
        query, candidate = (
            meta_token_names("q", num_query_tokens),
            meta_token_names("c", num_candidate_tokens),
        )
        add_meta_tokens(self.model, self.tokenizer, [*query, *candidate], seed=seed)
        self.query_ids: list[int] = self.tokenizer.convert_tokens_to_ids(query)
        self.candidate_ids: list[int] = self.tokenizer.convert_tokens_to_ids(candidate)
        if self.query_length is None:
            self.query_length = self.document_length = self._item_limit()
        if max_visual_tokens is not None:
            self._limit_pictures(max_visual_tokens)

    @property
    def item_length(self) -> int:
        """Tokens of an item that are read, the tokenizer's own special tokens included."""
        assert self.document_length is not None
        return self.document_length

    @property
    def text_length(self) -> int:
        """Tokens of plain text that are read: `item_length` without the special ones."""
        return self.item_length - SPECIAL_TOKENS

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Start and end, in characters, of every token of a text, however long it is."""
        encoded = self.tokenizer(
            text, return_offsets_mapping=True, add_special_tokens=False, verbose=False
        )
        return encoded["offset_mapping"]

    @property
    def meta_token_ids(self) -> list[int]:
        """Vocabulary rows of all meta tokens, queries' first."""
        return [*self.query_ids, *self.candidate_ids]

    def _load_config(
        self, model_name_or_path: str, backend: str, config_kwargs: dict[str, Any]
    ) -> tuple[Any, bool]:
        """Like the library's, but an adapter's base may be one that `resolve_backbone` knows."""
        own = {key: config_kwargs.get(key) for key in ("cache_dir", "token", "revision")}
        adapter = find_adapter_config_file(
            model_name_or_path, local_files_only=config_kwargs.get("local_files_only", False), **own
        )
        if adapter is None:
            return super()._load_config(model_name_or_path, backend, config_kwargs)
        base = json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"]
        kept = {k: v for k, v in config_kwargs.items() if k not in ("revision", "subfolder")}
        return super()._load_config(resolve_backbone(base), backend, kept)[0], True

    def _load_model(
        self,
        model_name_or_path: str,
        transformer_task: Any,
        config: Any,
        backend: str,
        is_peft_model: bool,
        **model_kwargs: Any,
    ) -> Any:
        if not is_peft_model:
            return super()._load_model(
                model_name_or_path, transformer_task, config, backend, False, **model_kwargs
            )
        base_kwargs = {k: v for k, v in model_kwargs.items() if k not in ("revision", "subfolder")}
        base = config._name_or_path
        model = super()._load_model(base, transformer_task, config, backend, False, **base_kwargs)
        # The adapter's rows for meta tokens lie past the end of the base's table.
        rows = max(
            model.get_input_embeddings().weight.shape[0],
            len(AutoTokenizer.from_pretrained(model_name_or_path)),
        )
        model.resize_token_embeddings(rows, mean_resizing=False)
        model.load_adapter(model_name_or_path)
        return model

    def _item_limit(self) -> int:
        positions = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        limits = [self.tokenizer.model_max_length, *([positions] if positions else [])]
        length = min(limits) - self.num_query_tokens - self.num_candidate_tokens
        if length < MIN_ITEM_TOKENS:
            raise ModelError(
                f"The backbone reads {min(limits)} tokens, which leaves {length} for the item "
                f"after {self.num_query_tokens} + {self.num_candidate_tokens} meta tokens; "
                f"at least {MIN_ITEM_TOKENS} are needed, so use fewer meta tokens."
            )
        return int(length)

    def _limit_pictures(self, max_visual_tokens: int) -> None:
        # An image longer than what is read would have to be cut, which no backbone survives.
        limit = min(max_visual_tokens, max(4, self.item_length // 2))
        if size := picture_limits(self.config.model_type, limit):
            self.processing_kwargs = {
                **self.processing_kwargs,
                "image": {**self.processing_kwargs.get("image", {}), **size},
            }

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Tokenize items and append the meta tokens of their side.

        `task` is "query" or, otherwise, candidate. The item is cut to fit first, so the number of
        meta tokens never depends on it.
        """
        if not inputs:
            return {}
        kwargs.pop("num_vectors", None)  # encode() sends it here as well; forward() uses it
        task = "query" if kwargs.pop("task", None) == "query" else "document"
        if (max_length := kwargs.pop("max_length", None)) is not None:
            kwargs["max_length"] = min(max_length, self.item_length)
        samples = [self._sample(item) for item in items_of(inputs)]
        features = super().preprocess(samples, prompt=prompt, task=task, **kwargs)
        if "input_ids" not in features:
            raise ItemError("These items have no text for the meta tokens to follow.")
        meta_ids = self.query_ids if task == "query" else self.meta_token_ids
        features = append_tokens(features, meta_ids)
        read = self.num_query_tokens if task == "query" else self.num_candidate_tokens
        ends = features["attention_mask"].sum(dim=1, keepdim=True)  # (B, 1)
        features["meta_positions"] = ends - read + torch.arange(read)  # (B, read)
        if self.windows is not None:
            lengths = (ends - len(meta_ids)).squeeze(1)
            sides = ["query"] if task == "query" else ["query", "candidate"]
            counts = [count for side in sides for count in self.windows[side]]
            features["position_ids"] = spread_positions(
                lengths, counts, width=features["input_ids"].shape[1]
            )
        return features

    def _sample(self, item: Item) -> dict[str, Any]:
        """The library's form of an item: the picture first, as in the paper, then the text."""
        sample: dict[str, Any] = {}
        if item.image is not None:
            if not self._sees():
                raise ItemError(
                    "This model reads text only, but an item has an image; "
                    "use a vision backbone, or the text in the image."
                )
            sample["image"] = fit_picture(item.image, self.config.model_type)
        text = item.prompt()
        if text is not None:
            sample["text"] = text
        return sample

    def _sees(self) -> bool:
        return any("image" in modality for modality in self.modalities)

    def forward(
        self, features: dict[str, Any], num_vectors: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        features = dict(features)
        positions = features.pop("meta_positions")[:, :num_vectors]  # (B, r)
        features = super().forward(features, **kwargs)
        states = features["token_embeddings"]  # (B, T, hidden)
        index = positions.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        features["token_embeddings"] = states.gather(1, index)
        features["attention_mask"] = torch.ones_like(positions)
        return features


def meta_token_names(side: str, count: int) -> list[str]:
    """
    >>> meta_token_names("q", 2)
    ['<|meta_q_0|>', '<|meta_q_1|>']
    """
    return [f"<|meta_{side}_{number}|>" for number in range(count)]


def add_meta_tokens(model: Any, tokenizer: Any, names: Sequence[str], *, seed: int) -> None:
    """Give every meta token a vocabulary row, unless it has one.

    New rows are drawn around the mean of the table with its spread per dimension: in the range
    that the backbone knows, without a meaning of their own.
    """
    known = tokenizer.get_vocab()
    missing = [name for name in names if name not in known]
    if not missing:
        return
    table = model.get_input_embeddings().weight.detach()
    mean, spread = table.float().mean(dim=0), table.float().std(dim=0)
    tokenizer.add_tokens(missing, special_tokens=True)
    rows = max(table.shape[0], len(tokenizer))  # some tables are already longer than the tokenizer
    if rows > table.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    noise = torch.randn(len(missing), table.shape[1], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        ids = torch.tensor(tokenizer.convert_tokens_to_ids(missing), device=weight.device)
        weight[ids] = (mean + noise.to(weight.device) * spread).to(weight.dtype)


def spread_positions(
    lengths: Int[Tensor, " B"], counts: Sequence[int], *, width: int
) -> Int[Tensor, "B T"]:
    """Positions that put every meta token in the middle of the part it looks after."""
    positions = torch.arange(width).repeat(len(lengths), 1)  # (B, T)
    starts, stops = windows_of(lengths, counts)
    slots = lengths.unsqueeze(1) + torch.arange(starts.shape[1])
    positions.scatter_(1, slots, (starts + stops - 1) // 2)
    is_used = torch.arange(width) < lengths.unsqueeze(1) + starts.shape[1]
    return torch.where(is_used, positions, 0)


def append_tokens(features: dict[str, Any], token_ids: Sequence[int]) -> dict[str, Any]:
    """Move every row's real tokens to the left, append `token_ids`, pad on the right.

    Positions of an item and its meta tokens are then the same in every batch.
    """
    mask: Int[Tensor, "B T"] = features["attention_mask"].bool()
    lengths = mask.sum(dim=1, keepdim=True)  # (B, 1)
    order = torch.argsort(~mask, dim=1, stable=True)  # real tokens first, in their order
    width = int(lengths.max()) + len(token_ids)
    slots = lengths + torch.arange(len(token_ids))  # (B, R)
    columns = torch.arange(width)
    features = copy.copy(features)
    for key in PER_TOKEN_KEYS:
        if key not in features:
            continue
        packed = features[key].gather(1, order)[:, :width]
        packed = torch.nn.functional.pad(packed, (0, width - packed.shape[1]))
        packed = torch.where(columns < lengths, packed, 0)
        if key == "input_ids":
            packed.scatter_(1, slots, torch.tensor(token_ids).expand(len(packed), -1))
        if key == "attention_mask":
            packed = (columns < lengths + len(token_ids)).to(packed.dtype)
        features[key] = packed
    return features
