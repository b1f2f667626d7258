"""Custom Keras layers, one a file.

Importing this package registers every layer with Keras, so that a saved ``.keras`` file made of them loads.
"""

from layers.dense import Dense
from layers.dropout import Dropout
from layers.relu import ReLU, relu

__all__ = ["Dense", "Dropout", "ReLU", "relu"]
