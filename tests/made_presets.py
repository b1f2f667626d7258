"""Presets of KerasHub with few weights, written by KerasHub: one of each family for which it has a classifier."""

import json
from pathlib import Path
from typing import Any

#: What the classes ``<family>Backbone`` are called with. Where it says no size, any will do.
FAMILIES: dict[str, dict[str, Any]] = {
    "CSPNet": {
        **{"stem_filters": 8, "stem_kernel_size": 3, "stem_strides": 1, "stem_padding": "same"},
        **{"stackwise_depth": [1, 2], "stackwise_strides": 2, "stackwise_num_filters": [8, 16]},
        **{"block_type": "dark_block", "stage_type": "csp", "down_growth": True},
        **{"bottle_ratio": (0.5, 1.0), "block_ratio": (1.0, 0.5), "expand_ratio": (2.0, 1.0)},
    },
    "DeiT": {
        **{"image_shape": (32, 32, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2},
        **{"hidden_dim": 16, "intermediate_dim": 32},
    },
    "DenseNet": {"stackwise_num_repeats": [2, 2], "growth_rate": 2},
    "EfficientNet": {
        **{"stackwise_width_coefficients": [1.0] * 2, "stackwise_depth_coefficients": [1.0] * 2},
        **{"stackwise_kernel_sizes": [3, 3], "stackwise_num_repeats": [1, 1], "stackwise_strides": [1, 2]},
        **{
            "stackwise_input_filters": [8, 8],
            "stackwise_output_filters": [8, 16],
            "stackwise_expansion_ratios": [1, 4],
        },
        **{"stackwise_squeeze_and_excite_ratios": [0.0, 0.25], "stackwise_block_types": ["fused", "unfused"]},
        **{"stackwise_force_input_filters": [0, 0], "stackwise_nores_option": [False, False]},
    },
    "HGNetV2": {
        **{"image_shape": (64, 64, 3), "embedding_size": 16, "stem_channels": [3, 8, 16], "hidden_act": "relu"},
        **{"depths": [1, 1], "hidden_sizes": [16, 32], "apply_downsample": [False, True]},
        **{"stackwise_stage_filters": [[16, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3]]},
        **{"use_learnable_affine_block": False, "use_lightweight_conv_block": [False, False]},
    },
    "MiT": {
        **{"image_shape": (32, 32, 3), "num_layers": 2, "hidden_dims": [4, 8], "max_drop_path_rate": 0.1},
        **{"layerwise_depths": [1, 1], "layerwise_num_heads": [1, 2], "layerwise_sr_ratios": [8, 4]},
        **{"layerwise_patch_sizes": [7, 3], "layerwise_strides": [4, 2]},
    },
    "MobileNet": {
        **{"image_shape": (32, 32, 3), "stackwise_num_blocks": [1, 1], "stackwise_expansion": [[16], [24]]},
        **{"stackwise_num_filters": [[16], [24]], "stackwise_kernel_size": [[3], [5]]},
        **{"stackwise_num_strides": [[2], [2]], "stackwise_se_ratio": [[None], [0.25]], "squeeze_and_excite": 0.5},
        **{"stackwise_activation": [["relu"], ["hard_swish"], ["hard_swish"]], "stackwise_padding": [[1], [2]]},
        **{"depthwise_filters": 8, "depthwise_stride": 2, "depthwise_residual": False, "output_num_filters": 32},
        **{"last_layer_filter": 24},
    },
    "MobileNetV5": {
        **{"image_shape": (32, 32, 3), "stem_size": 8, "use_msfa": False},
        **{"stackwise_block_types": [["er"], ["uir"]], "stackwise_num_blocks": [1, 1], "stackwise_strides": [[2], [2]]},
        **{"stackwise_num_filters": [[8], [16]], "stackwise_act_layers": [["relu"], ["relu"]]},
        **{"stackwise_exp_ratios": [[4.0], [6.0]], "stackwise_se_ratios": [[0.0], [0.0]]},
        **{"stackwise_dw_kernel_sizes": [[0], [5]], "stackwise_dw_start_kernel_sizes": [[0], [0]]},
        **{"stackwise_dw_end_kernel_sizes": [[0], [0]], "stackwise_exp_kernel_sizes": [[3], [0]]},
        **{"stackwise_pw_kernel_sizes": [[1], [0]], "stackwise_num_heads": [[0], [0]]},
        **{"stackwise_key_dims": [[0], [0]], "stackwise_value_dims": [[0], [0]]},
        **{"stackwise_kv_strides": [[0], [0]], "stackwise_use_cpe": [[False], [False]]},
    },
    "ResNet": {
        **{"input_conv_filters": [64], "input_conv_kernel_sizes": [3], "block_type": "basic_block"},
        **{"stackwise_num_filters": [64, 8], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]},
    },
    "SwinTransformer": {
        **{"image_shape": (32, 32, 3), "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
    },
    "VGG": {"image_shape": (16, 16, 3), "stackwise_num_repeats": [1, 1], "stackwise_num_filters": [4, 8]},
    "ViT": {
        **{"image_shape": (32, 32, 3), "patch_size": (8, 8), "num_layers": 2, "num_heads": 2},
        **{"hidden_dim": 16, "mlp_dim": 32},
    },
    "Xception": {"stackwise_conv_filters": [[8, 16], [16, 16]], "stackwise_pooling": [False, True]},
}
#: Of the images of ImageNet, as KerasHub's presets have them: one number a channel.
SCALE, OFFSET = [1 / 58.4, 1 / 57.1, 1 / 57.4], [-2.1, -2.0, -1.8]


def write_preset(folder: Path, family: str = "ResNet", **settings: Any) -> Path:
    """Write a preset of this family, with weights drawn at random, and return its folder."""
    import keras_hub
    import numpy as np

    backbone = getattr(keras_hub.models, f"{family}Backbone")(**FAMILIES[family] | settings)
    random = np.random.default_rng(0)
    backbone.set_weights([each + 0.01 * abs(random.normal(size=each.shape)) for each in backbone.get_weights()])
    backbone.save_to_preset(str(folder))
    converter_of(family)(scale=SCALE, offset=OFFSET).save_to_preset(str(folder))
    return folder


def converter_of(family: str) -> Any:
    """KerasHub's class that prepares images for this family."""
    import keras_hub

    return getattr(keras_hub.layers, f"{family}ImageConverter")


def change_config(folder: Path, **changes: Any) -> None:
    """Change what ``config.json`` of a preset says."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
