"""A tiny vision transformer."""

from typing import Any

import keras

from layerflow.models.classifier import Classifier
from layers import GELU, Dense, Dropout, LayerNormalization, MultiHeadAttention, PatchEmbedding, Residual


@keras.saving.register_keras_serializable(package="layerflow")
class Vit(Classifier):
    """Patches as tokens, blocks of attention and dense layers, and a head over all tokens.

    Args:
        classes: Number of classes.
        width: Features of a token.
        depth: Number of blocks.
        heads: Heads of the attention; they must divide ``width``.
        patch_size: Height and width of a patch; it must divide those of the images.
        dropout: Share of each branch's outputs that training leaves out.
        **kwargs: As for ``Classifier``: ``shift``, ``flip``.

    References:
        Dosovitskiy et al., An image is worth 16x16 words (2020). Its class token is left out: with so few tokens the
        head can take them all.
    """

    def __init__(
        self,
        classes: int,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        patch_size: int = 4,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        body: list[Any] = [PatchEmbedding(patch_size, width)]
        for _ in range(depth):
            drop = [Dropout(dropout)] if dropout else []
            dense = [_dense(2 * width), GELU(), _dense(width), *([Dropout(dropout)] if dropout else [])]
            body += [Residual([LayerNormalization(), MultiHeadAttention(heads), *drop])]
            body += [Residual([LayerNormalization(), *dense])]
        super().__init__([*body, LayerNormalization()], classes, **kwargs)
        self.width, self.depth, self.heads, self.patch_size, self.dropout = width, depth, heads, patch_size, dropout

    def get_config(self) -> dict[str, Any]:
        fields = ("width", "depth", "heads", "patch_size", "dropout")
        return {**super().get_config(), **{field: getattr(self, field) for field in fields}}


def _dense(units: int) -> keras.layers.Layer:
    return Dense(units, w_initializer="glorot_uniform")
