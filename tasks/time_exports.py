"""How long each export takes for one image. No stage; `pawline report` runs it.

reads   models/export/
writes  the median milliseconds for one image, by the export's name (JSON)

python -m tasks.time_exports --out FILE

The image is noise: what it shows makes no difference. `saved_model_bytes` decodes and resizes a JPEG besides.
"""

import io
import logging
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks import stage
from tasks.export.replay import Photos, Replay, open_export
from tasks.progress import Progress
from tasks.stage import PawlineError

log = logging.getLogger(__name__)

WARM_UP_CALLS, TIMED_CALLS = 5, 50


def time_exports(*, export_dir: Path, out: Path) -> None:
    """Time every export of a folder, each by itself: the threads of another library would wait busily and slow it.

    Raises:
        PawlineError: An export is missing, or is not what was exported.
    """
    facts = stage.read_json(export_dir / "export.json")
    paths = {name: export_dir / figures["path"] for name, figures in facts["formats"].items()}
    missing = next((path for path in paths.values() if not path.exists()), None)
    if missing is not None:
        raise PawlineError(f"{missing} is missing: `dvc checkout {export_dir}` or `dvc repro export`")
    for name, digest in facts.get("sha256", {}).items():
        if stage.sha256_of(export_dir / name) != digest:
            raise stage.damaged(export_dir / name, "its SHA-256 is another")
    photo = _noise(facts["image"]["size_px"])
    latencies = {}
    with Progress("time", total=len(paths), unit="formats") as progress:
        for name, path in paths.items():
            latencies[name] = _time(open_export(name, path), photo)
            progress.advance()
    with stage.whole_file(out) as unfinished:
        stage.write_json(latencies, unfinished)
    log.info("time: %s", ", ".join(f"{name} {latency:.1f} ms" for name, latency in latencies.items()))


def _time(replay: Replay, photo: Photos) -> float:
    """Return the median milliseconds of a call."""
    seconds = []
    for _ in range(WARM_UP_CALLS + TIMED_CALLS):
        began = time.perf_counter()
        replay(photo)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[WARM_UP_CALLS:])


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
