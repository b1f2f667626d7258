"""The precision in which a network computes."""

from typing import Any

import keras

from layerflow.errors import ConfigError


def in_precision(network: Any, precision: str, image_shape: tuple[int, ...]) -> Any:
    """The same network with the same weights, computing in ``precision``; its weights stay float32."""
    if precision == "float32":
        return network
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        mixed = type(network).from_config({**network.get_config(), "dtype": precision})
        mixed.build((None, *image_shape))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"training.precision {precision} needs a network that can be made again from its config with another "
            f"dtype. {type(network).__name__} can't; train it in float32."
        ) from error
    finally:
        keras.config.set_dtype_policy(before)
    # All variables, because the state of Keras' own random layers is not a weight.
    for variable, value in zip(mixed.variables, network.variables, strict=True):
        variable.assign(value)
    for layer in mixed._flatten_layers(include_self=False):
        if hasattr(layer, "finalize_state"):  # a normalisation keeps what it makes of its weights
            layer.finalize_state()
    return mixed
