"""Where a network looked: which places of an image speak for a class."""

import logging
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

log = logging.getLogger(__name__)

#: Operations behind which a place of a tensor is no longer a place of the image, and those that add places to it.
_MOVES = ("Reshape", "Transpose", "BatchMatMulV2", "Einsum", "Slice", "StridedSlice")
_PADS = ("Pad", "PadV2", "MirrorPad")


class Attention:
    """HiResCAM of an exported model, from its graph alone.

    The map of features ``A`` is the last one in which a place is still a place of the image: that of the last
    convolution, or the scaled image itself in a network without any. A place speaks for a class by
    ``relu(sum_k(A_k * d logit / d A_k))``. Where a network ends in global average pooling and one dense layer, that is
    Grad-CAM; elsewhere, Grad-CAM averages the gradient over all places, and can show places that don't count.

    Args:
        signature: ``serving_default``, as it was loaded.

    Raises:
        ValueError: If the graph has no such map, or no gradient goes through what is behind it.

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
        for node in graph.node:  # a gradient of Keras' own belongs to the graph in which it was made
            node.attr.pop("_gradient_op_type", None)

        def look(given: tf.Tensor, class_id: tf.Tensor) -> tf.Tensor:
            found, answer = tf.graph_util.import_graph_def(graph, {images.name: given}, names)
            (gradient,) = tf.gradients(answer[:, class_id], found)
            return tf.nn.relu(tf.reduce_sum(tf.cast(found * gradient, tf.float32), -1))

        specs = [tf.TensorSpec(images.shape, tf.uint8), tf.TensorSpec((), tf.int64)]
        try:
            self._look = tf.function(look, input_signature=specs, autograph=False).get_concrete_function()
            self._look(tf.zeros((1, *images.shape[1:]), tf.uint8), tf.constant(0, tf.int64))
        except Exception as error:  # TensorFlow raises whatever it likes for a loop, or a function without a gradient
            log.info("no gradient of the exported graph: %s: %s", type(error).__name__, error)
            raise ValueError("no gradient goes through its graph") from error

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
    """The last tensor that the logits depend on and whose rows and columns are still those of the images.

    What is reshaped and back to a shape that was there before, as in group normalization, has its places again.
    """
    needed, last = _needed_for(logits), None
    found, moved, shapes = {images.ref()}, set[Any](), set[tuple[int, ...]]()
    for operation in graph.get_operations():
        if operation not in needed or not operation.outputs:
            continue
        output, inputs = operation.outputs[0], {each.ref() for each in operation.inputs}
        is_map = output.shape.rank == 4 and None not in output.shape[1:].as_list()
        shape = tuple(output.shape[1:].as_list()) if is_map else ()
        is_back = operation.type == "Reshape" and shape in shapes and bool(inputs & moved)
        if is_back or (inputs & found and operation.type not in _MOVES and is_map and max(shape[:2]) > 1):
            found.add(output.ref())
            shapes.add(shape)
            last = output if output.dtype.is_floating and operation.type not in _PADS else last
        elif inputs & (found | moved):
            moved.add(output.ref())
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
