"""Where an encoder's weights come from, and how the network is cut after a layer."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.errors import ModelError
from tamis.models.settings import Backbone, HubBackbone, PackageBackbone, PathBackbone

if TYPE_CHECKING:
    from torch import nn


def file_sha256(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(backbone: Backbone) -> tuple[str, dict[str, str]]:
    """What to hand to ``from_pretrained`` for a backbone, without importing its package.

    Returns:
        A folder or a hub name, and the keyword arguments that go with it.

    Raises:
        ModelError: The weights are missing, or are not those that were pinned.
    """
    if isinstance(backbone, HubBackbone):
        return backbone.model, {"revision": backbone.revision}
    if isinstance(backbone, PathBackbone):
        if not Path(backbone.path).is_dir():
            raise ModelError(f"backbone: given {backbone.path!r}; allowed: a model folder")
        return backbone.path, {}
    return str(_locate_package(backbone)), {}


def _locate_package(backbone: PackageBackbone) -> Path:
    try:
        distribution = importlib.metadata.distribution(backbone.package)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f"backbone: package {backbone.package!r} is not installed") from None
    folder = Path(str(distribution.locate_file(backbone.path)))
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"backbone: {backbone.package} carries no {backbone.path}")
    found = file_sha256(weights)
    if found != backbone.sha256:
        raise ModelError(
            f"backbone: weights of {backbone.package} have sha256 {found[:12]}…, "
            f"pinned is {backbone.sha256[:12]}…; they are not loaded"
        )
    return folder


def quiet() -> None:
    """Keep transformers from drawing bars and warning of what we do on purpose."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def require_tokenizer(folder: Path) -> None:
    """Do nothing when a model folder has its tokenizer; transformers makes one up otherwise.

    Raises:
        ModelError: It has none.
    """
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
    if not any((folder / name).is_file() for name in names):
        raise ModelError(f"backbone {folder}: it has no tokenizer")


def load_backbone(backbone: Backbone) -> tuple[Any, Any]:
    """The whole network and its tokenizer.

    Raises:
        ModelError: See ``locate``; or the files cannot be loaded.
    """
    from transformers import AutoModel, AutoTokenizer

    quiet()
    where, arguments = locate(backbone)
    if Path(where).is_dir():
        require_tokenizer(Path(where))
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **arguments)
        model = AutoModel.from_pretrained(where, use_safetensors=True, **arguments)
    except (OSError, ValueError) as error:
        raise ModelError(f"backbone {where}: {str(error).splitlines()[0]}") from None
    return model.eval(), tokenizer


def transformer_layers(model: Any) -> nn.ModuleList:
    """The list of a network's transformer layers, whatever its architecture calls it.

    Raises:
        ModelError: No list of modules is as long as the configuration's number of layers.
    """
    from torch import nn

    depth = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ModelError(f"backbone {type(model).__name__}: its transformer layers were not found")


def cut(model: Any, layer: int) -> Any:
    """Drop every layer above ``layer`` (counted from 1), in place; also the unused pooler."""
    layers = transformer_layers(model)
    del layers[layer:]
    model.config.num_hidden_layers = layer
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def thin(model: Any, layers: int) -> Any:
    """Keep so many layers, evenly spread from the first to the last, in place.

    It is how DistilBERT's student begins (Sanh et al. 2019, section 2), with an even choice for
    any number.
    """
    found = transformer_layers(model)
    depth = len(found)
    kept = {round(at * (depth - 1) / max(1, layers - 1)) for at in range(layers)}
    for at in reversed(range(depth)):
        if at not in kept:
            del found[at]
    model.config.num_hidden_layers = layers
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model
