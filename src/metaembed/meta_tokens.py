"""The backbone with meta tokens: appends them to every item and returns their last states.

Meta tokens are ordinary vocabulary rows, so a trained model is an ordinary checkpoint. A query is
read as `[item, M_q]`, a candidate as `[item, M_q, M_c]` (paper, section on Meta Tokens: both sets
stand at the end, the query's first). Only the states of M_q (query) or M_c (candidate) come out.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from sentence_transformers.base.modules import Transformer
from transformers import AutoTokenizer
from transformers.utils.peft_utils import find_adapter_config_file

from metaembed.backbones import Family, Layout, family_of, resolve_backbone
from metaembed.backbones.appending import append_tokens, spread_positions
from metaembed.backbones.vocabulary import add_meta_tokens, grow_table, meta_token_names
from metaembed.errors import ItemError, ModelError
from metaembed.items import Item, items_of

if TYPE_CHECKING:
    from PIL import Image

MIN_ITEM_TOKENS = 8
SPECIAL_TOKENS = 2
"""Added around a text by the tokenizers of text encoders; chat templates are not counted."""
MIN_VISUAL_TOKENS = 4


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
        "layout",
        "max_visual_tokens",
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
        layout: Mapping[str, str] | None = None,
        max_visual_tokens: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """`layout` has the fields of `Layout`; the family's own by default."""
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
        if self.family.prepare is not None:
            self.family.prepare(self.model)
        self.query_ids: list[int] = self.tokenizer.convert_tokens_to_ids(query)
        self.candidate_ids: list[int] = self.tokenizer.convert_tokens_to_ids(candidate)
        if self.query_length is None:
            self.query_length = self.document_length = self._item_limit()
        # Saved with the model, so that what it was trained on stays what it reads.
        own = self.family.layout
        self.layout = layout or (None if own is None else dataclasses.asdict(own))
        self._layout = None if self.layout is None else Layout(**self.layout)
        self.max_visual_tokens = max_visual_tokens
        if max_visual_tokens is not None:
            self._limit_pictures(max_visual_tokens)

    @property
    def family(self) -> Family:
        """What is special about this backbone's family."""
        return family_of(self.config.model_type)

    @property
    def item_length(self) -> int:
        """Tokens of an item that are read, the tokenizer's own special tokens included."""
        assert self.document_length is not None
        return self.document_length

    @property
    def text_length(self) -> int:
        """Tokens of plain text that are read: `item_length` without the special ones."""
        if self._layout is None:
            return self.item_length - SPECIAL_TOKENS
        return self.item_length - max(self._frame(Item(text=""), is_query=q) for q in (True, False))

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
        grow_table(model, len(AutoTokenizer.from_pretrained(model_name_or_path)))
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
        if not hasattr(self.processor, "image_processor"):
            return
        # An image longer than what is read would have to be cut, which no backbone survives.
        limit = min(max_visual_tokens, max(MIN_VISUAL_TOKENS, self.item_length // 2))
        if size := self.family.pictures.limit(self.processor, limit):
            self.processing_kwargs = {
                **self.processing_kwargs,
                "image": {**size, **self.processing_kwargs.get("image", {})},
            }
        self.max_visual_tokens = limit

    def get_embedding_dimension(self) -> int:
        """Width of the states; some configurations name another number beside the text model's."""
        width = getattr(self.config.get_text_config(), "hidden_size", None)
        return width or super().get_embedding_dimension()

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
        items = items_of(inputs)
        if self._layout is None:
            samples = [self._sample(item) for item in items]
            features = super().preprocess(samples, prompt=prompt, task=task, **kwargs)
        else:
            length = kwargs.get("max_length", self.item_length)
            features = self._written(items, task == "query", prompt=prompt or "", length=length)
        if "input_ids" not in features:
            raise ItemError("These items have no text for the meta tokens to follow.")
        meta_ids = self.query_ids if task == "query" else self.meta_token_ids
        features = append_tokens(features, meta_ids, self.family.per_token)
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
        image, text = self._picture(item), item.prompt()
        sample: dict[str, Any] = {} if image is None else {"image": image}
        if text is not None:
            sample["text"] = text
        return sample

    def _picture(self, item: Item) -> "Image.Image | None":
        if item.image is None:
            return None
        if not any("image" in modality for modality in self.modalities):
            raise ItemError(
                "This model reads text only, but an item has an image; "
                "use a vision backbone, or the text in the image."
            )
        return self.family.pictures.fit(item.image, self.max_visual_tokens)

    def _written(
        self, items: Sequence[Item], is_query: bool, *, prompt: str, length: int
    ) -> dict[str, Any]:
        """Write items by the layout and tokenize them."""
        images = [self._picture(item) for item in items]
        texts = [self._text(item, is_query, prompt=prompt, length=length) for item in items]
        options = self.processing_kwargs.get("image", {})
        features = self.family.process(self.processor, texts, images, options)
        features["modality"] = next(iter(self.modality_config))  # one method reads them all
        if any(image is not None for image in images):
            counts = [int(image is not None) for image in images]
            features["num_images_per_sample"] = torch.tensor(counts)
        return features

    def _text(self, item: Item, is_query: bool, *, prompt: str, length: int) -> str:
        """Write one item; its text is cut where the whole would have more than `length` tokens."""
        assert self._layout is not None
        item = dataclasses.replace(
            item, text=self._plain(item.text), instruction=self._plain(item.instruction)
        )
        text = self._layout.text_of(item, is_query=is_query, prompt=prompt)
        visual = 0 if item.image is None else self.max_visual_tokens or 0
        room = min(length, self.item_length - visual)
        written = self._layout.write(item, is_query=is_query, prompt=prompt, text=text)
        if len(written.encode()) <= room:  # no token is shorter than a byte
            return written
        room = max(0, room - self._frame(item, is_query=is_query, prompt=prompt))
        offsets = self.token_offsets(text)
        if len(offsets) > room:
            text = text[: offsets[room - 1][1]] if room else ""
        return self._layout.write(item, is_query=is_query, prompt=prompt, text=text)

    def _frame(self, item: Item, *, is_query: bool, prompt: str = "") -> int:
        """Tokens around an item's text, visual ones not counted."""
        assert self._layout is not None
        empty = self._layout.write(item, is_query=is_query, prompt=prompt, text="")
        return len(self.token_offsets(empty))

    def _plain(self, text: str | None) -> str | None:
        """Take out what would stand for a picture that is not there."""
        for owner in (self.processor, self.tokenizer):
            for name in ("image_token", "video_token"):
                token = getattr(owner, name, None)
                if text is not None and token:
                    text = text.replace(token, " ")
        return text

    def forward(
        self, features: dict[str, Any], num_vectors: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        positions = features["meta_positions"][:, :num_vectors]  # (B, r)
        features = {**features, **super().forward(self._model_inputs(features), **kwargs)}
        del features["meta_positions"]
        states = features["token_embeddings"]  # (B, T, hidden)
        index = positions.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        features["token_embeddings"] = states.gather(1, index)
        features["attention_mask"] = torch.ones_like(positions)
        return features

    def _model_inputs(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """What the backbone knows of; a loss may keep more beside it."""
        known = {"modality", *inspect.signature(self.model.forward).parameters}
        known.update(self.processor.model_input_names)
        counts = features.get("num_images_per_sample")
        if counts is not None and not counts.any():  # part of a batch that has pictures elsewhere
            known -= set(self.processor.image_processor.model_input_names)
        return {key: value for key, value in features.items() if key in known}
