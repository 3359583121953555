"""Matryoshka Multi-Vector Retrieval: one contrastive loss over nested prefixes of the vectors."""

from metaembed.loss.mmr import Gather, MMRLoss
from metaembed.loss.objective import Score, mmr_loss

__all__ = ["Gather", "MMRLoss", "Score", "mmr_loss"]
