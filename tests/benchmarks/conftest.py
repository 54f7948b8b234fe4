"""TensorFlow, as the rest of the tests have it, before the plain program imports it with its log noise."""

import tasks.quiet_tf  # noqa: F401
