"""A run of eight epochs, told to ``TRACKERS``, which kills itself after four where ``DIE`` is set."""

import os
import signal

from cli.run import run_retrain
from cli.terminal import Output
from layerflow.config import RetrainConfig
from layerflow.settings.extend import ExtendConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import session
from layerflow.training.checkpoint import Checkpoint
from tasks import tracking

saved = 0
original = Checkpoint.save


def save(*args):
    global saved
    original(*args)
    saved += 1
    if saved == 4:
        os.kill(os.getpid(), signal.SIGKILL)


session._SAVING_SHARE = 1e6  # a checkpoint after each epoch, however short it is
if os.environ.get("DIE"):
    Checkpoint.save = save

tracking._SECONDS = 0  # after each epoch, however short it is
trackers = ExtendConfig(trackers=tuple(os.environ.get("TRACKERS", "").split()))
config = RetrainConfig(training=TrainingConfig(epochs=8), extend=trackers)
print("EPOCHS", run_retrain(config, Output()).result.trained.epochs)
