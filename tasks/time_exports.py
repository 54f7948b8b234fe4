"""How long each export takes for one image. No stage; `pawline report` runs it.

reads   models/export/
writes  the median milliseconds for one image, by the export's name (JSON)

python -m tasks.time_exports --out FILE

The image is noise: what it shows makes no difference. `saved_model_bytes` decodes and resizes a JPEG besides.
"""

import io
import json
import logging
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks import stage
from tasks.export.replay import Photos, open_export
from tasks.progress import Progress
from tasks.stage import PawlineError

log = logging.getLogger(__name__)

WARM_UP_CALLS, TIMED_CALLS = 3, 30


def time_exports(*, export_dir: Path, out: Path) -> None:
    """Time every export of a folder, in turn, so that what else the machine does meanwhile slows all of them.

    Raises:
        PawlineError: An export is missing.
    """
    facts = json.loads((export_dir / "export.json").read_text(encoding="utf-8"))
    paths = {name: export_dir / figures["path"] for name, figures in facts["formats"].items()}
    missing = next((path for path in paths.values() if not path.exists()), None)
    if missing is not None:
        raise PawlineError(f"{missing} is missing: `dvc checkout {export_dir}` or `dvc repro export`")
    replays = {name: open_export(name, path) for name, path in paths.items()}
    photo = _noise(facts["image"]["size_px"])
    seconds: dict[str, list[float]] = {name: [] for name in replays}
    with Progress("time", total=WARM_UP_CALLS + TIMED_CALLS, unit="calls") as progress:
        for _ in range(WARM_UP_CALLS + TIMED_CALLS):
            for name, replay in replays.items():
                began = time.perf_counter()
                replay(photo)
                seconds[name].append(time.perf_counter() - began)
            progress.advance()
    latencies = {name: 1000 * statistics.median(calls[WARM_UP_CALLS:]) for name, calls in seconds.items()}
    with stage.whole_file(out) as unfinished:
        stage.write_json(latencies, unfinished)
    log.info("time: %s", ", ".join(f"{name} {latency:.1f} ms" for name, latency in latencies.items()))


def _noise(size_px: int) -> Photos:
    """One image of noise, as a square and as the bytes of a JPEG of twice its side."""
    side = 2 * size_px
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG")
    return Photos([encoded.getvalue()], pixels[None, :size_px, :size_px])


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--export-dir", "models/export", "reads: exports")
    parser.add_argument("--out", type=Path, required=True, help="writes: milliseconds an image (JSON)")
    args: dict[str, Any] = vars(parser.parse_args(argv))
    time_exports(**args)


if __name__ == "__main__":
    stage.run(main)
