"""The backbone of metaembed-mini as it was published: one mean-pooled vector an item."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from metaembed.backbones import MINILM, resolve_backbone


class SingleVector:
    """A sentence-transformers model with one vector an item, all-MiniLM-L6-v2 by default."""

    def __init__(self, name: str = MINILM) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(resolve_backbone(name))

    @property
    def dim(self) -> int:
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "N dim"]:
        """Encode texts to unit length, float32."""
        vectors = self._model.encode(list(texts), normalize_embeddings=True)
        return np.asarray(vectors, dtype=np.float32)
