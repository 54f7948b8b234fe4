"""Stage `export`: the classifier in the formats that others load, checked against the original.

reads   models/classifier.keras, data/tfrecords/
writes  models/export/ (classifier.keras, classifier.h5, labels.txt, export.json)

python -m tasks.export    (about ten seconds, most of them TensorFlow's start)
"""

import logging
import shutil
from pathlib import Path

import numpy as np

from tasks import stage

log = logging.getLogger(__name__)

TOLERANCE = 1e-5  # of a probability: the same network on the same processor


def export(*, classifier_path: Path, tfrecords_dir: Path, export_dir: Path) -> None:
    """Write each format and replay it on a batch of validation images.

    Raises:
        stage.PawlineError: If an export's probabilities differ from the classifier's.
    """
    from tasks import keras_files, records

    classifier = keras_files.load_model(classifier_path)
    images = next(records.read_shard(records.shard_paths(tfrecords_dir, "val")[0])).images
    expected = np.asarray(classifier.predict_on_batch(images))
    facts = {}
    with stage.whole_dir(export_dir) as unfinished:
        shutil.copyfile(classifier_path, unfinished / "classifier.keras")
        keras_files.save_model(classifier, unfinished / "classifier.h5")
        labels = records.read_labels(tfrecords_dir)
        (unfinished / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        for name in ("classifier.keras", "classifier.h5"):
            replayed = np.asarray(keras_files.load_model(unfinished / name).predict_on_batch(images))
            difference = float(np.abs(replayed - expected).max())
            if difference > TOLERANCE:
                raise stage.PawlineError(f"export: {name} differs by {difference:.2g} from the classifier; not written")
            facts[name] = {"bytes": (unfinished / name).stat().st_size, "max_difference": difference}
        stage.write_json({"formats": facts, "images": len(images), "tolerance": TOLERANCE}, unfinished / "export.json")
    sizes = ", ".join(f"{name} {fact['bytes'] / 1e6:.1f} MB" for name, fact in facts.items())
    log.info("export: %s, checked on %d validation images, in %s", sizes, len(images), export_dir)


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--classifier-path", "models/classifier.keras", "reads: the classifier")
    stage.add_path(parser, "--tfrecords-dir", "data/tfrecords", "reads: images to replay, label names")
    stage.add_path(parser, "--export-dir", "models/export", "writes: the exports")
    export(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    stage.run(main)
