"""The image networks of KerasHub, for raw images and with a new head. Only this module needs KerasHub."""

import contextlib
import inspect
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops

from layerflow.errors import ConfigError, printed, shown
from layers import Dense, Dropout, GlobalAveragePooling2D


@keras.saving.register_keras_serializable(package="layerflow")
class Hub(keras.Model):
    """A backbone of KerasHub, then global average pooling, dropout and a dense layer.

    ``backbone`` is the network of KerasHub, and ``head`` is the list of the layers after it. A loaded network has both
    again: ``network.backbone.trainable = False`` freezes what may be pretrained.

    The weights are new ones. Nothing is downloaded.

    Args:
        backbone: Name of its class in ``keras_hub.models``, such as ``ResNetBackbone``. KerasHub must have an image
            classifier for it.
        settings: What the class is called with: numbers, words, and lists of them.
        classes: Number of classes.
        image_shape: Height, width and channels of the images. Grey images are repeated to the channels of the backbone.
        scale: By what a pixel is multiplied, in all channels or in each; nothing if it is not.
        offset: What is then added.
        dropout: Share of the pooled features that training leaves out. 0.2 as for networks of ``keras.applications``.
        **kwargs: What every Keras model takes.

    Call arguments:
        images: Tensor ``(batch, height, width, channels)`` with values 0 to 255, ``uint8`` or floating point. The
            preprocessing of the preset is part of the graph.
        training: Whether dropout and batch statistics work.

    Returns:
        Logits, ``float32`` of shape ``(batch, classes)``.

    Raises:
        ConfigError: If KerasHub has no such backbone for images, or it has no such setting.
        ValueError: If it refuses the values of the settings, or the backbone can't take images of this shape.
    """

    def __init__(
        self,
        backbone: str,
        settings: dict[str, Any],
        classes: int,
        image_shape: tuple[int, int, int],
        scale: float | list[float] | None = None,
        offset: float | list[float] | None = None,
        dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        height, width, channels = image_shape
        self.classes, self.image_shape, self.dropout = classes, (height, width, channels), dropout
        self.scale, self.offset = scale, offset
        self.kind, self.settings = backbone, dict(settings)
        self.backbone = _made_for(_class_named(backbone), self.settings, self.image_shape)
        logits = Dense(classes, name="logits", dtype="float32")
        self.head: list[keras.layers.Layer] = [GlobalAveragePooling2D(), Dropout(dropout), logits]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the head; the backbone is built."""
        shape = tuple(self._features_of(self.backbone.output).shape)
        for layer in self.head:
            layer.build(shape)
            shape = tuple(layer.compute_output_shape(shape))

    def call(self, images: Any, training: bool | None = False) -> Any:
        x = self.features(images)
        for layer in self.head:
            x = layer(x)  # Keras hands `training` on
        return x

    def features(self, images: Any) -> Any:
        """What the backbone makes of raw images, and the head takes: ``(batch, height, width, channels)``."""
        pixels = ops.cast(images, "float32")  # in mixed precision too, whose numbers are too coarse for channel means
        pixels = ops.repeat(pixels, self.backbone.input_shape[-1] // self.image_shape[-1], axis=-1)
        if self.scale is not None:
            pixels = pixels * np.asarray(self.scale, np.float32)
        if self.offset is not None:
            pixels = pixels + np.asarray(self.offset, np.float32)
        return self._features_of(self.backbone(pixels))

    def _features_of(self, answer: Any) -> Any:
        """The last stage of what a backbone answers; of a transformer its class token, or else all of its tokens."""
        if isinstance(answer, dict):
            stages, last = answer, self.backbone.stage_names[-1]
            if last not in stages:
                raise ValueError(f"the preset must give the features of its last stage, {last}")
            answer = stages[last]
        if len(answer.shape) == 4:
            return answer
        # KerasHub's classifiers too look at the class token alone: the first one, which DeiT always has.
        has_token = getattr(self.backbone, "use_class_token", self.kind == "DeiTBackbone")
        return ops.expand_dims(answer[:, :1] if has_token else answer, 2)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "backbone": self.kind,
            "settings": dict(self.settings),
            "classes": self.classes,
            "image_shape": list(self.image_shape),
            "scale": self.scale,
            "offset": self.offset,
            "dropout": self.dropout,
        }


def _class_named(name: str) -> Any:
    """A backbone for which KerasHub has an image classifier; a saved file can name no other class."""
    classes: list[Any] = [each for each in vars(keras_hub.models).values() if inspect.isclass(each)]
    of_classifiers = (each.backbone_cls for each in classes if issubclass(each, keras_hub.models.ImageClassifier))
    backbones = {each.__name__: each for each in of_classifiers if each}
    if name not in backbones:
        raise ConfigError(
            f"model.name must name a preset for which KerasHub has an image classifier. Received: a {printed(name)}; "
            f"choose a preset of {', '.join(backbones)}."
        )
    return backbones[name]


def _made_for(kind: Any, settings: dict[str, Any], image_shape: tuple[int, int, int]) -> Any:
    """The backbone for images of this height and width, with the weights that it has for those of its settings.

    The weights of a transformer depend on the size of its images. Then it takes images of that size alone.
    """
    parameters = inspect.signature(kind).parameters
    name = "input_shape" if "input_shape" in parameters else "image_shape"
    *given, channels = _image_shape(settings, settings.get(name) or parameters[name].default)
    height, width, received = image_shape
    if received not in (1, channels):
        raise ValueError(f"`image_shape` must have 1 or {channels} channels. Received: image_shape={image_shape}")
    wanted = (height, width, channels)
    if None in given or tuple(given) == (height, width):
        return _make(kind, {**settings, name: wanted})
    expected, made = _make(kind, settings), None
    with contextlib.suppress(ValueError):
        made = _make(kind, {**settings, name: wanted})
    if made is None or _shapes(made) != _shapes(expected):
        raise ValueError(f"the weights of this preset are for images of {given[0]}x{given[1]} pixels")
    return made


def _image_shape(settings: dict[str, Any], shape: Any) -> list[int | None]:
    """The height and width of the images that a preset is made for, if it says them, and their channels."""
    is_shape = isinstance(shape, list | tuple) and len(shape) == 3 and isinstance(shape[2], int)
    if not is_shape or not all(each is None or (isinstance(each, int) and each > 0) for each in shape):
        raise ValueError(f"the preset must say height, width and channels of its images, not {shown(shape)}")
    if settings.get("data_format") not in (None, "channels_last"):
        raise ValueError("the preset takes images whose channels come first")
    return list(shape)


def _shapes(backbone: Any) -> list[Any]:
    return [tuple(weight.shape) for weight in backbone.weights]


def _make(kind: Any, settings: dict[str, Any]) -> Any:
    known = {name for name, each in inspect.signature(kind).parameters.items() if each.kind is not each.VAR_KEYWORD}
    if unknown := sorted(settings.keys() - known):
        raise ConfigError(
            f"The settings of a preset must be those of KerasHub's {kind.__name__}, in version "
            f"{keras_hub.__version__}. {printed(unknown[0])} is not one of them; install the version that wrote it."
        )
    if settings.get("drop_path_rate"):  # of MobileNetV5; its random numbers are kept in no variable of the network
        raise ConfigError(
            f"A killed training must resume with the same random numbers. KerasHub's {kind.__name__} draws others with "
            "a drop_path_rate; set it to 0 in the preset."
        )
    try:
        return kind(**settings)
    except Exception as error:  # whatever KerasHub, Keras and TensorFlow raise of settings that don't fit
        said = printed(" ".join(str(error).split()), 400)
        raise ValueError(f"KerasHub can't make its {kind.__name__} ({said})") from error
