"""A folder of images, as TensorFlow Datasets sees it."""

from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from layerflow.data.image_folder import Listing, read_batches


class ImageTree(tfds.core.DatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Reads the files of a folder where they are; there is nothing to prepare, as with ``tfds.ImageFolder``.

    Unlike that, it takes more formats, makes images fit by a stated rule, reads in an order that the content decides,
    and leaves out what can't be read.

    Args:
        listing: What is in the folder.
        shape: Height, width and channels that each image gets.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, listing: Listing, shape: tuple[int, int, int]) -> None:
        self.listing, self.shape = listing, shape
        #: The files that could not be read and why, once all were.
        self.broken: list[tuple[str, str]] = []
        #: What ended the reading early; ``tf.data`` would make another error of it.
        self.failure: Exception | None = None
        super().__init__(data_dir=str(listing.root))
        self._data_dir = str(listing.root)
        splits = sorted({file.split for file in listing.files}, reverse=True)
        sizes = {split: sum(file.split == split for file in listing.files) for split in splits}
        infos = [tfds.core.SplitInfo(name=split, shard_lengths=[size], num_bytes=0) for split, size in sizes.items()]
        self.info.set_splits(tfds.core.SplitDict(infos))

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="A folder of images.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=self.shape),
                    "label": tfds.features.ClassLabel(names=self.listing.classes),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _download_and_prepare(self, **kwargs: Any) -> None:
        """Do nothing: the files are there."""

    def _as_dataset(self, split: str, shuffle_files: bool = False, **kwargs: Any) -> tf.data.Dataset:
        batch = {"image": tf.TensorSpec((None, *self.shape), tf.uint8), "label": tf.TensorSpec((None,), tf.int64)}

        def batches() -> Any:
            try:
                for images, labels in read_batches(self.listing, split, self.shape, self.broken):
                    yield {"image": images, "label": labels}
            except Exception as error:  # whatever it is, the reader raises it again
                self.failure = error

        # By batches, because each call from TensorFlow into Python costs as much as reading two small images.
        return tf.data.Dataset.from_generator(batches, output_signature=batch).unbatch()
