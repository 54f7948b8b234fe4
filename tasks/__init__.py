"""The stages of the pipeline, one module each, and the few parts they share."""
