"""BERT: text only, all tokens see each other, a learned vector a position.

Meta tokens are spread over the item: where tokens attend in both directions, positions are all
that orders them, and what stands near a position is what such a backbone has learnt to look for.
"""

from metaembed.backbones.family import Family

FAMILY = Family(
    attention="bidirectional",
    placement="spread",
    lora_targets=(
        r"(?:.*\.)?encoder\.layer\.\d+\."
        r"(?:attention\.self\.(?:query|key|value)|(?:attention\.output|intermediate|output)\.dense)"
    ),
)
