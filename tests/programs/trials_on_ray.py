"""Two trials at a time on a Ray of its own. Usage: ``trials_on_ray.py CONFIG SPACE DATA``, as JSON."""

import json
import sys

from prefect import flow

from layerflow.config import RetrainConfig
from layerflow.records import DatasetRef
from layerflow.sweeps.space import plan
from tasks.trials.schedule import run_trials


@flow(persist_result=False)
def trials():
    config, space, data = RetrainConfig.model_validate_json(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    return run_trials(config, plan(config, space, "local"), DatasetRef.model_validate_json(data), 2, 2, "local")


print(trials().model_dump_json())
