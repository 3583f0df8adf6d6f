import pytest

from tamis.models.backbone import load_backbone
from tamis.models.encoder import Encoder
from tamis.models.settings import PathBackbone
from tamis.task import TextLimits
from tests.tiny import save_tiny_bert


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a random BERT of 3 layers."""
    return save_tiny_bert(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture
def encoder(tiny_bert):
    """A fresh encoder over the tiny BERT."""
    model, tokenizer = load_backbone(PathBackbone(kind="path", path=str(tiny_bert)))
    return Encoder(model, tokenizer, TextLimits(max_characters=1_000, max_tokens=64))
