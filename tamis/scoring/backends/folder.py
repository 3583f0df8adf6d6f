"""A classifier prepared for a backend: a folder like that of ``Classifier.save``, and one more.

export.json           Export: which backend, made from which classifier, the hash of each file
encoder.onnx          the network, for onnxruntime; it stands in place of the weights
exact.onnx            the same in fp32, where that one is quantised: checks what is close
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tamis.config import Strict
from tamis.errors import ModelError
from tamis.models.backbone import file_sha256
from tamis.models.classifier import Classifier, digest, load_classifier
from tamis.models.encoder_classifier import (
    EncoderClassifier,
    load_encoder_classifier,
    load_parts,
)
from tamis.scoring.settings import BackendName

MARK = "export.json"
_WEIGHTS = "backbone/model.safetensors"


class Export(Strict):
    """What an exported folder is.

    Attributes:
        backend: What it was made for.
        source: ``digest`` of the classifier that it was made from.
        light_tokenizer: Whether the tokenizer does the same without transformers.
        files: sha256 of every other file, by its path in the folder.
    """

    format: Literal[1] = 1
    backend: BackendName
    source: str
    light_tokenizer: bool = False
    files: dict[str, str]


def export(model_dir: Path, backend: BackendName, home: Path) -> Path:
    """Prepare a saved classifier for a backend, once.

    Args:
        model_dir: What ``Classifier.save`` wrote.
        backend: For what.
        home: Folder for exports; each gets one of its own, named after the classifier's digest.

    Returns:
        A folder for ``load_backend``: that of the classifier itself for ``torch``.

    Raises:
        ModelError: The classifier cannot be loaded, the network cannot be exported, or the folder
            cannot be written.
    """
    if backend == "torch":
        return model_dir
    try:
        source = digest(model_dir)
        target = home / f"{source[:16]}-{backend}"
        if not (target / MARK).is_file():
            _export(model_dir, backend, source, target)
    except OSError as error:
        raise ModelError(f"export of {model_dir} for {backend}: {error}") from None
    return target


def _export(model_dir: Path, backend: BackendName, source: str, target: Path) -> None:
    home = target.parent
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=home, prefix="tmp-") as staging:
        folder = Path(staging) / "export"
        shutil.copytree(model_dir, folder)
        light = False
        if backend.startswith("onnx"):
            from tamis.scoring.backends import onnx

            classifier = load_encoder_classifier(model_dir)
            onnx.export(classifier, folder, backend == "onnx-int8")
            (folder / _WEIGHTS).unlink()
            light = classifier.preparer_loader(model_dir) is not None
        found = Export(backend=backend, source=source, light_tokenizer=light, files=_hashes(folder))
        (folder / MARK).write_text(found.model_dump_json(indent=1), "utf-8")
        try:
            folder.rename(target)
        except OSError:  # another process was first, or there is a folder that lost its mark
            if not (target / MARK).is_file():
                shutil.rmtree(target)
                folder.rename(target)


def _hashes(folder: Path) -> dict[str, str]:
    mark = folder / MARK
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != mark)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def read_export(folder: Path | str) -> Export | None:
    """What an exported folder is; None for a classifier as it was saved.

    Raises:
        ModelError: The file that says so is damaged.
    """
    path = Path(folder) / MARK
    if not path.is_file():
        return None
    try:
        return Export.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise ModelError(
            f"{folder}: {MARK} is damaged or of another format; remove the folder"
        ) from None


def load_backend(folder: Path | str) -> Classifier:
    """Load a classifier of any family as it was saved, or as it was prepared for a backend.

    Raises:
        ModelError: As ``load_encoder``.
    """
    if read_export(folder) is None:
        return load_classifier(folder)
    return load_encoder(folder)


def load_encoder(folder: Path | str) -> EncoderClassifier:
    """Load an encoder as it was saved, or as it was prepared for a backend.

    Raises:
        ModelError: The folder is damaged, a file is not the one that was exported, or the backend
            does not run here.
    """
    folder = Path(folder)
    found = read_export(folder)
    if found is None:
        return load_encoder_classifier(folder)
    try:
        actual = _hashes(folder)
    except OSError as error:
        raise ModelError(f"{folder}: {error}") from None
    wrong = sorted(name for name, _ in set(actual.items()) ^ set(found.files.items()))
    if wrong:
        raise ModelError(f"{folder}: {wrong[0]} is not as it was exported; remove the folder")
    if found.backend.startswith("onnx"):
        return _onnx(folder, found.light_tokenizer)
    return _torch(folder, found.backend)


def _onnx(folder: Path, light: bool) -> EncoderClassifier:
    from tamis.models.preparer import load_preparer
    from tamis.scoring.backends.onnx import EXACT, FILE, OnnxEncoder

    info, head, score_map, reference = load_parts(folder)
    if light:
        tokenizer = load_preparer(folder).tokenizer
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder / "backbone", local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder}: tokenizer: {str(error).splitlines()[0]}") from None
    encoder, exact = (
        OnnxEncoder(folder / name, tokenizer, info.text, info.layer, info.pooling)
        for name in (FILE, EXACT)
    )
    exists = (folder / EXACT).is_file()
    return EncoderClassifier(info, encoder, head, reference, score_map, exact if exists else None)


def _torch(folder: Path, backend: BackendName) -> EncoderClassifier:
    import torch

    from tamis.models.encoder import Encoder
    from tamis.scoring.backends.packed import PackedEncoder

    plain = load_encoder_classifier(folder)
    info, inner = plain.info, plain.torch_encoder
    encoder: Any
    if backend == "torch-bf16":
        encoder = Encoder(inner.model.to(torch.bfloat16), inner.tokenizer, info.text)
    else:
        try:
            encoder = PackedEncoder(inner.model, inner.tokenizer, info.text, info.layer)
        except ValueError as error:
            raise ModelError(f"{backend}: {error}") from None
    return EncoderClassifier(info, encoder, plain.head, plain.reference, plain.score_map)
