"""What a stage minimises and how: loss, optimizer, learning-rate schedule."""

from tasks.quiet_tf import Model, keras


def compile_model(model: Model, *, learning_rate: float) -> None:
    """Compile for training with Adam and the cross-entropy that fits the model's output; labels are class indices."""
    binary = model.output_shape[-1] == 1
    loss = keras.losses.BinaryCrossentropy() if binary else keras.losses.SparseCategoricalCrossentropy()
    accuracy = keras.metrics.BinaryAccuracy if binary else keras.metrics.SparseCategoricalAccuracy
    model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=[accuracy(name="accuracy")])
    # Keras would do it at the first batch: too late for the state of an interrupted run to be taken up.
    model.optimizer.build(model.trainable_variables)
