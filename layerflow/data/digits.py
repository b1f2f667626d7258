"""scikit-learn's handwritten digits as a TFDS dataset: real images that need no network.

Importing this module registers the builder, so that ``tfds.builder("digits")`` finds it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 handwritten digits of 8x8 pixels: 1,437 to train on and 360 to test on, in equal shares of each class.

    References:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8x8 pixels, as they ship with scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        # 360 of 1,797 is a fifth; seed 0 and equal class shares make the division the same everywhere.
        train, test = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=load_digits().target)
        return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

    def _generate_examples(self, chosen: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        digits = load_digits()
        # The grey values are whole numbers 0 to 16; images are 0 to 255 everywhere else.
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        for index in sorted(chosen.tolist()):
            yield index, {"image": images[index], "label": int(digits.target[index])}
