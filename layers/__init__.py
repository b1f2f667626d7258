"""Custom Keras layers, one a file.

Importing this package registers every layer with Keras, so that a saved ``.keras`` file made of them loads.
"""

from layers.batch_normalization import BatchNormalization
from layers.conv2d import Conv2D
from layers.dense import Dense
from layers.dropout import Dropout
from layers.flatten import Flatten
from layers.gelu import GELU
from layers.global_average_pooling2d import GlobalAveragePooling2D
from layers.layer_normalization import LayerNormalization
from layers.max_pooling2d import MaxPooling2D
from layers.multi_head_attention import MultiHeadAttention
from layers.patch_embedding import PatchEmbedding
from layers.random_flip import RandomFlip
from layers.random_shift import RandomShift
from layers.relu import ReLU, relu
from layers.rescale import Rescale
from layers.residual import Residual

__all__ = [
    "GELU",
    "BatchNormalization",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "LayerNormalization",
    "MaxPooling2D",
    "MultiHeadAttention",
    "PatchEmbedding",
    "RandomFlip",
    "RandomShift",
    "ReLU",
    "Rescale",
    "Residual",
    "relu",
]
