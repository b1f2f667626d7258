"""The classification networks of ``keras.applications``: their names and options, known without importing Keras."""

#: How ``model.name`` begins where it names one of them.
PREFIX = "applications:"
#: By network: the module of ``keras.applications`` that holds it and its preprocessing.
MODULES = {
    **{f"ConvNeXt{size}": "convnext" for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    **{f"DenseNet{depth}": "densenet" for depth in (121, 169, 201)},
    **{f"EfficientNetB{size}": "efficientnet" for size in range(8)},
    **{f"EfficientNetV2{size}": "efficientnet_v2" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")},
    "InceptionResNetV2": "inception_resnet_v2",
    "InceptionV3": "inception_v3",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3Small": "mobilenet_v3",
    "MobileNetV3Large": "mobilenet_v3",
    "NASNetMobile": "nasnet",
    "NASNetLarge": "nasnet",
    **{f"ResNet{depth}": "resnet" for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": "resnet_v2" for depth in (50, 101, 152)},
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "Xception": "xception",
}
#: What changes the backbone, of the arguments that their functions take: all else is ours to decide.
OPTIONS = {
    "mobilenet": ("alpha", "depth_multiplier"),
    "mobilenet_v2": ("alpha",),
    "mobilenet_v3": ("alpha", "minimalistic"),
}
#: The widths that have ImageNet weights.
ALPHAS = {
    "mobilenet": (0.25, 0.5, 0.75, 1.0),
    "mobilenet_v2": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    "mobilenet_v3": (0.75, 1.0),
}


def is_application(name: str) -> bool:
    """Whether ``model.name`` names a network of ``keras.applications``."""
    return name.startswith(PREFIX)
