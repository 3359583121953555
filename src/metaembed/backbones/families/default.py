"""Any backbone without an entry of its own: written as its tokenizer or chat template does it."""

from metaembed.backbones.family import Family

FAMILY = Family(
    attention="causal",  # the stricter assumption; nothing is left out for it
    lora_targets=(
        r"(?!.*(?:vision|visual|image|pooler)).*\."
        r"(?:[qkvo]_proj|out_proj|gate_proj|up_proj|down_proj|query|key|value|dense|Wqkv|Wi|Wo)"
    ),
)
