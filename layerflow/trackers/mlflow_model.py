"""What MLflow loads as the model. It is saved with the model, and needs TensorFlow and MLflow, not layerflow.

``mlflow.pyfunc.load_model`` runs this file, so the model is code that can be read, and no pickle.
"""

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ServedModel(PythonModel):
    """The SavedModel's signature ``serving_default``."""

    def load_context(self, context: Any) -> None:
        """Load the SavedModel, which is stored with this file."""
        import tensorflow as tf

        self.loaded = tf.saved_model.load(context.artifacts["saved_model"])  # what a signature is of must be kept

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> dict[str, np.ndarray]:
        """The answers to images, ``uint8`` of shape ``(batch, height, width, channels)``, by the outputs' names."""
        import tensorflow as tf

        answers = self.loaded.signatures["serving_default"](images=tf.constant(model_input, tf.uint8))
        return {name: answer.numpy() for name, answer in answers.items()}


set_model(ServedModel())
