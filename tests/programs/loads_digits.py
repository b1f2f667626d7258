"""Load the digits into the store under the key that is given, and print their digest."""

import sys

from layerflow import artifacts
from layerflow.data.load import load
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig

print(artifacts.make("load_data", sys.argv[1], DatasetRef, lambda folder: load(DataConfig(), folder)).digest)
