"""Where a network looked: which places of an image speak for a class."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

#: Operations behind which a place of a tensor is no longer a place of the image.
_MOVES = ("Reshape", "Transpose", "BatchMatMulV2", "Einsum")


class Attention:
    """HiResCAM of an exported model, from its graph alone.

    The map of features ``A`` is the last one in which a place is still a place of the image: that of the last
    convolution, or the scaled image itself in a network without any. A place speaks for a class by
    ``relu(sum_k(A_k * d logit / d A_k))``. Where a network ends in global average pooling and one dense layer, that is
    Grad-CAM; elsewhere, Grad-CAM averages the gradient over all places, and can show places that don't count.

    Args:
        signature: ``serving_default``, as it was loaded.

    Raises:
        ValueError: If the graph has no such map, or is too large for a copy of it.

    References:
        Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization (2017).
        Draelos & Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of CNNs (2020).
    """

    def __init__(self, signature: Any) -> None:
        frozen = convert_variables_to_constants_v2(signature)  # functions become nodes of one graph
        (images,) = frozen.inputs
        by_name = dict(zip(sorted(signature.structured_outputs), frozen.outputs, strict=True))
        logits = _logits_of(by_name["probabilities"])
        features = _last_map(frozen.graph, images, logits)
        graph, names = frozen.graph.as_graph_def(), [features.name, logits.name]

        def look(given: tf.Tensor, class_id: tf.Tensor) -> tf.Tensor:
            found, answer = tf.graph_util.import_graph_def(graph, {images.name: given}, names)
            (gradient,) = tf.gradients(answer[:, class_id], found)
            return tf.nn.relu(tf.reduce_sum(tf.cast(found * gradient, tf.float32), -1))

        specs = [tf.TensorSpec(images.shape, tf.uint8), tf.TensorSpec((), tf.int64)]
        self._look = tf.function(look, input_signature=specs, autograph=False).get_concrete_function()

    def map(self, image: np.ndarray, class_id: int) -> np.ndarray:
        """How much each place speaks for a class: from 0 to 1, ``float32`` of shape ``(rows, columns)``.

        All are 0 where nothing speaks for it.

        Args:
            image: ``uint8`` of shape ``(height, width, channels)``.
            class_id: The number of the class.
        """
        found = self._look(tf.constant(image[None]), tf.constant(class_id, tf.int64)).numpy()[0]
        most = found.max()
        return np.asarray(found / most if np.isfinite(most) and most > 0 else np.zeros_like(found))


def _logits_of(probabilities: tf.Tensor) -> tf.Tensor:
    """What the softmax takes, which the export puts before the probabilities."""
    operation = probabilities.op
    while operation.type in ("Identity", "Cast"):
        operation = operation.inputs[0].op
    if operation.type != "Softmax":
        raise ValueError("its probabilities do not come from a softmax")
    return operation.inputs[0]


def _last_map(graph: tf.Graph, images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The last tensor that the logits depend on and whose rows and columns are still those of the images."""
    needed, found, last = _needed_for(logits), {images.ref()}, None
    for operation in graph.get_operations():
        if operation not in needed or operation.type in _MOVES or not operation.outputs:
            continue
        if not any(each.ref() in found for each in operation.inputs):
            continue
        output = operation.outputs[0]
        if output.shape.rank == 4 and None not in (sides := output.shape[1:3].as_list()) and max(sides) > 1:
            found.add(output.ref())
            last = output if output.dtype.is_floating else last
    if last is None:
        raise ValueError("its graph has no map of features")
    return last


def _needed_for(tensor: tf.Tensor) -> set[tf.Operation]:
    needed, left = set[tf.Operation](), [tensor.op]
    while left:
        if (operation := left.pop()) not in needed:
            needed.add(operation)
            left += [each.op for each in operation.inputs]
    return needed
