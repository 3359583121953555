"""Finding a model by name: the one that ships with the package, a folder, or the hub."""

from importlib import resources
from pathlib import Path

from metaembed.errors import ModelError
from metaembed.model import MetaEmbed

MINI = "metaembed-mini"


def load_model(name: str | Path, *, device: str | None = None) -> MetaEmbed:
    """Load a model ready to encode: `metaembed-mini`, a folder, or a hub id.

    An adapter is merged into its base. Raises `ModelError` with what to do when it cannot be had.
    """
    if str(name) == MINI:
        return _load(mini_folder(), device)
    path = Path(name)
    if not path.is_dir() and (path.is_absolute() or str(name).startswith(".")):
        raise ModelError(
            f"There is no model folder {str(name)!r}; give {MINI}, a folder or a hub id."
        )
    return _load(name, device)


def mini_folder() -> Path:
    """Where the package keeps what metaembed-mini adds to all-MiniLM-L6-v2."""
    folder = Path(str(resources.files("metaembed"))) / "mini"
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            "This installation lacks metaembed-mini's adapter; reinstall the package, or make the "
            "model with `make mini` in a checkout."
        )
    return folder


def _load(name: str | Path, device: str | None) -> MetaEmbed:
    model = MetaEmbed(name, device=device)
    model.eval()
    return model.merge_adapter()
