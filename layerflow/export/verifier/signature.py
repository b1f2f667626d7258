"""A signature of a loaded model, asked in the two ways in which it can be served."""

from typing import Any

import numpy as np
import tensorflow as tf

from .refusal import RefusedError, first_line, require

Specs = dict[str, tf.TensorSpec]


class Signature:
    """One of a model's signatures, whose two descriptions must be what the contract says.

    Args:
        function: What Python programs call.
        described: What TensorFlow Serving runs.
        session: Has the graph of ``described``, with its variables.
        inputs: What the signature must take: one tensor.
        outputs: What it must give.
    """

    def __init__(self, function: Any, described: Any, session: Any, inputs: Specs, outputs: Specs) -> None:
        taken = function.structured_input_signature[1]
        require_same("input", inputs, taken, described.inputs)
        require_same("output", outputs, function.structured_outputs, described.outputs)
        (self.input,), self.outputs = inputs, sorted(outputs)
        self.function = function
        names = [described.outputs[name].name for name in self.outputs]
        self.run = session.make_callable(names, [described.inputs[self.input].name])

    def __call__(self, batch: np.ndarray, served: bool) -> dict[str, np.ndarray]:
        """The answers to a batch, each with as many rows as the batch; ``served``: as TensorFlow Serving would."""
        try:
            if served:
                answers = dict(zip(self.outputs, self.run(batch), strict=True))
            else:
                found = self.function(**{self.input: tf.constant(batch)})
                answers = {name: found[name].numpy() for name in self.outputs}
        except Exception as error:
            raise RefusedError(f"a batch of {len(batch)} fails: {first_line(error)}") from error
        same = all(len(answer) == len(batch) for answer in answers.values())
        require(same, "answers and images differ in number")
        return answers


def require_same(kind: str, expected: Specs, received: Any, nodes: Any) -> None:
    """Refuse inputs or outputs that are not those expected, in what Python calls or in what TensorFlow Serving runs."""
    served = {
        name: tf.TensorSpec(tf.TensorShape(node.tensor_shape), tf.as_dtype(node.dtype)) for name, node in nodes.items()
    }
    for found in (received, served):
        require(
            expected.keys() == found.keys(),
            f"the signature's {kind}s must be {sorted(expected)}, received {sorted(found)}",
        )
        for name, spec in expected.items():
            same = found[name].dtype == spec.dtype and found[name].shape.is_compatible_with(spec.shape)
            require(same, f"{kind} {name} must be {spec.dtype.name} {spec.shape}, received {found[name]}")
