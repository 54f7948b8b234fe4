"""Train a tiny head as a stage does: `python -m tests.tasks.tiny_training FOLDER PARAMS.json OUT.json [DEVICES]`.

FOLDER has features of six channels. DEVICES sets up so many logical processors, for the strategy `mirrored`.
"""

import sys
from pathlib import Path

from tasks import heads, stage, strategy, training, workers
from tasks.params import ComputeParams, TrainHeadParams
from tasks.quiet_tf import tf


def main() -> None:
    folder, params_json, out = map(Path, sys.argv[1:4])
    kind = "auto"
    if len(sys.argv) > 4:
        kind = "mirrored"
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration() for _ in range(int(sys.argv[4]))]
        tf.config.set_logical_device_configuration(cpu, logical)
    params = TrainHeadParams.model_validate_json(params_json.read_text())
    team = strategy.join(ComputeParams.model_validate({"strategy": kind}), "train_head", params, folder)
    with workers.scratch_dir("train_head", params.model_dump(), folder) as scratch:
        with strategy.scope(team):
            head = heads.build_head(6, 2, params, output="sigmoid")
            splits = training.open_splits(folder, "pooled")
            history = training.train(head, splits, params, output="sigmoid", scratch=scratch, what="train_head")
        if workers.is_chief():
            weights = [weight.tolist() for weight in head.get_weights()]
            stage.write_json(vars(history) | {"weights": weights} | strategy.trained_by(head), out)


if __name__ == "__main__":
    stage.run(main)
