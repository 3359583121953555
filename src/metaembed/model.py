"""The MetaEmbed model: items in, a fixed number of vectors out, at the budget asked for."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize
from torch import Tensor, nn

from metaembed.backbones import resolve_backbone
from metaembed.budget import PAPER_GROUPS, Budget, parse_groups
from metaembed.errors import BudgetError, ItemError, MetaEmbedError, ModelError
from metaembed.items import is_one_item
from metaembed.meta_tokens import MetaTokenTransformer
from metaembed.scoring import maxsim
from metaembed.windows import added

MODULE_TYPES: dict[str, type[nn.Module]] = {
    f"{cls.__module__}.{cls.__qualname__}": cls for cls in (MetaTokenTransformer,)
}
"""The only classes outside sentence-transformers that a saved model may name."""


class UntrainedBudgetWarning(UserWarning):
    """A budget was asked for whose prefixes no training group covers exactly."""


class MetaEmbed(MultiVectorEncoder):
    """Encode text, images or both into `(r, dim)` vectors whose every prefix is usable.

    A sentence-transformers `MultiVectorEncoder`: backbone with meta tokens, optional projection,
    L2 normalisation. Everything of that class works; on top of it `encode_query` and
    `encode_document` take a `budget`, and embeddings stack, since all items have as many vectors.

    `MetaEmbed(path_or_hub_id)` loads a saved model and never runs code that came with it;
    `MetaEmbed.create(backbone)` makes a new, untrained one.
    """

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        groups: Sequence[Budget | str] | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> None:
        if trust_remote_code:
            raise ModelError(
                "MetaEmbed never runs code that comes with a model; leave trust_remote_code off "
                "and choose a backbone that transformers supports itself."
            )
        self._groups = None if groups is None else parse_groups(groups)
        self._saved_fingerprint: str | None = None
        self._saved_base: str | None = None
        # Read by the library when it resolves the classes that modules.json names.
        self._module_classes = MODULE_TYPES
        path = None if model_name_or_path is None else str(model_name_or_path)
        if path is None:
            super().__init__(**kwargs)
        else:
            kwargs["model_kwargs"] = {"use_safetensors": True, **(kwargs.get("model_kwargs") or {})}
            with _one_line(f"Model {path!r} cannot be loaded"):
                super().__init__(path, **kwargs)
        if not isinstance(self[0], MetaTokenTransformer):
            raise ModelError(
                f"{path or 'This model'} has no meta tokens; turn a backbone into a MetaEmbed "
                "model with MetaEmbed.create(backbone)."
            )
        largest = Budget(self[0].num_query_tokens, self[0].num_candidate_tokens)
        if self._groups is None:
            self._groups = tuple(group for group in PAPER_GROUPS if group.fits(largest))
        if self._groups[-1:] != (largest,):
            raise ModelError(
                f"The largest group must be the number of meta tokens, {largest}; "
                f"the groups are {', '.join(map(str, self._groups))}."
            )
        self._merged_fingerprint: str | None = None
        self._check_weights(path, kwargs)

    def _check_weights(self, path: str | None, kwargs: Mapping[str, Any]) -> None:
        """Compare what was loaded with what was saved: a missing tensor would be drawn anew."""
        changes = kwargs.get("model_kwargs", {}).keys() - {"use_safetensors", "attn_implementation"}
        if changes or kwargs.get("config_kwargs") or kwargs.get("prompts"):
            return
        if self._saved_base not in (None, self.base_fingerprint):
            raise ModelError(
                f"Adapter {path!r} was trained on another base: the weights of "
                f"{self[0].config._name_or_path!r} have the fingerprint {self.base_fingerprint}, "
                f"and those it was trained on {self._saved_base}. Load it with that base."
            )
        if self._saved_fingerprint not in (None, _fingerprint(self)):
            raise ModelError(
                f"Model {path!r} cannot be loaded: its weights or its configuration are not those "
                "that were saved. Fetch or save it again."
            )

    @classmethod
    def create(
        cls,
        backbone: str | Path,
        *,
        num_query_tokens: int = 16,
        num_candidate_tokens: int = 64,
        dim: int | Literal["full"] = 128,
        groups: Sequence[Budget | str] | None = None,
        max_visual_tokens: int = 1024,
        seed: int = 0,
        **kwargs: Any,
    ) -> Self:
        """Turn a backbone into an untrained MetaEmbed model.

        `backbone` is a folder or hub id of anything that sentence-transformers' `Transformer`
        loads. `dim="full"` keeps the backbone's width, as in the paper; otherwise a projection to
        `dim` is added. `groups` default to the paper's that fit, ending in all meta tokens. `seed`
        draws the meta tokens and the projection. `model_kwargs` and `processor_kwargs` go to
        transformers.
        """
        largest = Budget.parse(f"{num_query_tokens}x{num_candidate_tokens}")
        if groups is None:
            smaller = [group for group in PAPER_GROUPS if group.fits(largest) and group != largest]
            groups = [*smaller, largest]
        device = kwargs.pop("device", None)
        transformer = _load_backbone(
            backbone,
            num_query_tokens=num_query_tokens,
            num_candidate_tokens=num_candidate_tokens,
            max_visual_tokens=max_visual_tokens,
            seed=seed,
            **kwargs,
        )
        if transformer.family.placement == "spread":
            nested = parse_groups(groups)
            transformer.windows = {
                "query": added([group.query for group in nested]),
                "candidate": added([group.candidate for group in nested]),
            }
        modules: list[nn.Module] = [transformer]
        if dim != "full":
            modules.append(_projection(transformer.get_embedding_dimension(), dim, seed=seed))
        modules.append(Normalize(module_input_name="token_embeddings"))
        return cls(modules=modules, groups=groups, device=device)

    @property
    def groups(self) -> tuple[Budget, ...]:
        """The nested budgets that training covers, smallest first."""
        assert self._groups is not None
        return self._groups

    @property
    def limit(self) -> Budget:
        """The largest budget: all meta tokens."""
        return self.groups[-1]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that differ between models whose vectors differ.

        A digest of the configuration and of a fixed sample of every weight, so that models of
        many gigabytes answer at once. Merging an adapter does not change it; saving the merged
        model makes another model of it.
        """
        return self._merged_fingerprint or _fingerprint(self)

    @property
    def base_fingerprint(self) -> str:
        """16 hex digits of the backbone's own weights, without adapter and meta tokens.

        A fixed sample of every weight, as in `fingerprint`.
        """
        return _base_fingerprint(self[0])

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Tokenize items and append meta tokens; `task` says which side they are on."""
        return self[0].preprocess(inputs, prompt=prompt, **kwargs)

    def encode_query(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Encode queries; see `encode`."""
        return super().encode_query(inputs, *args, **kwargs)

    def encode_document(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Encode candidates; see `encode`."""
        return super().encode_document(inputs, *args, **kwargs)

    def encode(
        self,
        inputs: Any,
        *args: Any,
        budget: Budget | str | None = None,
        convert_to_tensor: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Encode items (see `Item.of`) into vectors, as many as `budget` gives their side.

        Returns what sentence-transformers returns, a list of `(r, dim)` tensors or one for a
        single item; with `convert_to_tensor` one `(N, r, dim)` tensor. Without `task="query"`
        items are candidates. `budget` defaults to `limit`; a larger one raises `BudgetError`.
        """
        if convert_to_tensor and kwargs.get("convert_to_numpy"):
            raise ItemError("Ask for convert_to_tensor or convert_to_numpy, not both.")
        one = is_one_item(inputs)
        batch = [inputs] if one else list(inputs)
        asked = self.limit if budget is None else self._checked(budget)
        is_query = kwargs.get("task") == "query"
        kwargs["num_vectors"] = asked.query if is_query else asked.candidate
        vectors = super().encode(batch, *args, **kwargs)
        if convert_to_tensor:
            vectors = torch.stack(vectors) if vectors else torch.empty(0, kwargs["num_vectors"], 0)
        return vectors[0] if one else vectors

    def similarity(
        self,
        embeddings1: Any,
        embeddings2: Any,
        *,
        budget: Budget | str | None = None,
        max_block_elements: int | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "Q C"]:
        """Score all queries against all candidates with `maxsim`, at a budget.

        Takes lists of `(r, dim)`, stacked `(N, r, dim)` or one `(r, dim)`. Scores are comparable
        only inside one budget; with `similarity_fn_name="meanmaxsim"` they are divided by `r_q`.
        """
        queries, candidates = stacked(embeddings1), stacked(embeddings2)
        if budget is not None:
            asked = self._checked(budget)
            given = Budget(queries.shape[1], candidates.shape[1])
            asked.require_fits(given, of="these embeddings")
            queries, candidates = queries[:, : asked.query], candidates[:, : asked.candidate]
        if kwargs:
            return super().similarity(queries, candidates, **kwargs)
        scores = maxsim(queries, candidates, max_block_elements=max_block_elements)
        return scores / queries.shape[1] if self.similarity_fn_name == "meanmaxsim" else scores

    def _checked(self, budget: Budget | str) -> Budget:
        asked = Budget.parse(budget)
        asked.require_fits(self.limit, of="the model")
        if asked.query not in {g.query for g in self.groups} or asked.candidate not in {
            g.candidate for g in self.groups
        }:
            warnings.warn(
                f"No training group of this model has the prefix lengths of {asked}; "
                f"trained are {', '.join(map(str, self.groups))}.",
                UntrainedBudgetWarning,
                stacklevel=3,
            )
        return asked

    def merge_adapter(self) -> Self:
        """Fold a LoRA adapter into the weights, which makes encoding faster and training end."""
        fingerprint = self.fingerprint
        _merge_adapter(self[0].model)
        self._merged_fingerprint = fingerprint
        return self

    def train(self, mode: bool = True) -> Self:
        if mode:  # weights may change from here on
            self._merged_fingerprint = None
        return super().train(mode)

    def _get_model_config(self) -> dict[str, Any]:
        config = super()._get_model_config()
        config["groups"] = [str(group) for group in self.groups]
        config["fingerprint"] = _fingerprint(self)
        if getattr(self[0].model, "_hf_peft_config_loaded", False):
            config["base_fingerprint"] = self.base_fingerprint
        return config

    def _parse_model_config(self, model_config: dict[str, Any]) -> None:
        super()._parse_model_config(model_config)
        self._saved_fingerprint = model_config.get("fingerprint")
        self._saved_base = model_config.get("base_fingerprint")
        if self._groups is None and "groups" in model_config:
            try:
                self._groups = parse_groups(model_config["groups"])
            except (BudgetError, TypeError) as error:
                raise ModelError(f"The model's saved groups cannot be read: {error}") from error


def stacked(embeddings: Any) -> Float[Tensor, "N r dim"]:
    """Turn any form that `encode` returns into one tensor."""
    if isinstance(embeddings, np.ndarray):
        embeddings = torch.from_numpy(embeddings)
    if isinstance(embeddings, Tensor):
        return embeddings.unsqueeze(0) if embeddings.ndim == 2 else embeddings
    return torch.stack([torch.as_tensor(one) for one in embeddings])


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn what the libraries raise for a folder they cannot read into one `ModelError`."""
    try:
        yield
    except MetaEmbedError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        SafetensorError,
        UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{what}: {reason}") from error


def _load_backbone(backbone: str | Path, **kwargs: Any) -> MetaTokenTransformer:
    name = str(backbone)
    source = resolve_backbone(name)
    kwargs["model_kwargs"] = {"use_safetensors": True, **(kwargs.get("model_kwargs") or {})}
    with _one_line(f"Backbone {name!r} cannot be loaded"):
        transformer = MetaTokenTransformer(source, **kwargs)
    if source != name:
        transformer.model.name_or_path = transformer.model.config._name_or_path = name
    return transformer


def _projection(hidden: int, dim: int, *, seed: int) -> Dense:
    """A linear map that keeps lengths and angles as well as `dim` allows: orthogonal rows."""
    weight = torch.empty(dim, hidden)
    nn.init.orthogonal_(weight, generator=torch.Generator().manual_seed(seed))
    return Dense(
        hidden,
        dim,
        bias=False,
        activation_function=nn.Identity(),
        init_weight=weight,
        module_input_name="token_embeddings",
    )


def _fingerprint(model: MetaEmbed, sample: int = 64) -> str:
    transformer = model[0]
    digest = hashlib.sha256(
        f"{transformer.config.model_type} {model.limit} {transformer.item_length} "
        f"{transformer.query_length} {transformer.windows} {transformer.processing_kwargs} "
        f"{model.prompts}".encode()
    )
    if transformer.layout is not None:
        digest.update(repr(transformer.layout).encode())
    for name, weight in sorted(model.state_dict().items()):
        if ".pooler." in name:  # never used; transformers draws it anew where a checkpoint lacks it
            continue
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        # Under an adapter the table's own rows of meta tokens are noise that nobody reads.
        rows = min(transformer.meta_token_ids) if ".token_adapter.base_layer" in name else None
        digest.update(_sampled(weight, sample, rows=rows))
    return digest.hexdigest()[:16]


def _base_fingerprint(transformer: MetaTokenTransformer, sample: int = 64) -> str:
    table = transformer.model.get_input_embeddings().weight
    rows = min(transformer.meta_token_ids, default=table.shape[0])
    weights = {
        name.replace("base_layer.", ""): weight
        for name, weight in transformer.model.state_dict().items()
        if weight.shape != table.shape  # the table, or an output layer tied to it
        and not any(part in name for part in ("lora_", "trainable_tokens", "pooler."))
    }
    digest = hashlib.sha256(transformer.config.model_type.encode())
    for name, weight in sorted({**weights, "table": table[:rows]}.items()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(_sampled(weight, sample))
    return digest.hexdigest()[:16]


def _sampled(weight: Tensor, count: int, *, rows: int | None = None) -> bytes:
    """`count` evenly spread numbers of a weight; those of its first rows, if so many are given."""
    flat = weight.detach().flatten()
    step = max(1, flat.numel() // count)
    end = flat.numel() if rows is None else rows * weight[0].numel()
    values = flat[:end:step][:count].to("cpu", torch.bfloat16).view(torch.int16).numpy()
    return bytes(values.tobytes())


def _merge_adapter(backbone: nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in list(backbone.named_modules()):
        if not isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        parent = backbone.get_submodule(name.rpartition(".")[0])
        if isinstance(module, AuxiliaryTrainingWrapper):
            merged = module.unload_and_optionally_merge_module(
                merge=True, safe_merge=False, adapter_names=None
            )
        elif ".token_adapter" in name:
            continue
        else:
            module.merge()
            merged = module.get_base_layer()
        setattr(parent, name.rpartition(".")[2], merged)
    backbone.__dict__["_hf_peft_config_loaded"] = False
    # Left by loading the adapter; saving would undo it on names that are plain again.
    backbone.__dict__.pop("_weight_conversions", None)
