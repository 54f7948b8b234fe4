"""Where photos wait their turn: a few threads that decode and answer, and a queue before them that does not grow."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from inference.classifier import Classifier
from inference.service_limits import RefusedError
from tasks.images import UndecodableError
from tasks.parallel import available_processors

WAITING = 64  # photos; at 100 a second the last of them waits 0.6 s

Probabilities = npt.NDArray[np.float32]  # [classes]


class Desk:
    """Answers photos, as many at a time as there are processors."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._threads = ThreadPoolExecutor(available_processors(), thread_name_prefix="photo")
        self._taken = 0  # photos that wait or are being answered

    def check_room(self, photos: int = 1) -> None:
        """Refuse photos that would have to wait too long.

        Raises:
            RefusedError: With status 503.
        """
        if self._taken and self._taken + photos > WAITING:
            raise RefusedError(503, "busy", f"{self._taken} photos are waiting already: try again in a moment")

    async def answer(self, contents: Sequence[bytes]) -> list[Probabilities | UndecodableError]:
        """Return the probabilities of each photo, or why it could not be read.

        Raises:
            RefusedError: With status 503.
        """
        self.check_room(len(contents))
        self._taken += len(contents)
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.gather(
                *(loop.run_in_executor(self._threads, self._answer_one, content) for content in contents)
            )
        finally:
            self._taken -= len(contents)

    def close(self) -> None:
        """End the threads once they have answered."""
        self._threads.shutdown()

    def _answer_one(self, content: bytes) -> Probabilities | UndecodableError:
        try:
            image = self._classifier.prepare(content)
        except UndecodableError as error:
            return error
        probabilities: Probabilities = self._classifier.probabilities(image[None])[0]
        return probabilities
