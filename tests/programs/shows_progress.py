"""Three epochs and a line of the log between them, as the step of training has them."""

import sys
import time

from prefect.logging import get_logger

from tasks.progress import epochs_shown

with epochs_shown(3) as callbacks:
    for epoch in range(3):
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"loss": 0.25})
        time.sleep(0.2)
        get_logger().info("in between")
print("over", file=sys.stderr)
