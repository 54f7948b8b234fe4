from tasks.report import figures_training
from tasks.report.figures_training import StageCurves, draw_curves, draw_learning_rates
from tests.tasks.report.test_figures import check_svg


def stage(name: str, *, batch_images: list[int], epochs: int, loss: float = 0.5, rate: float = 1e-3) -> StageCurves:
    batches = [
        {
            "epoch": float(epoch + 1),
            "images": float(images),
            "loss": loss,
            "accuracy": float(images > 1),
            "learning_rate": rate,
        }
        for epoch in range(epochs)
        for images in batch_images
    ]
    rows = [
        {"epoch": float(epoch + 1), "loss": loss, "accuracy": 0.9, "val_loss": loss, "val_accuracy": 0.8}
        for epoch in range(epochs)
    ]
    return StageCurves(name, batches, rows, best_epoch=1)


def test_figures_take_their_colours_from_the_page_and_hold_no_time() -> None:
    stages = [stage("stage 1", batch_images=[8, 8], epochs=2)]
    for svg in (draw_curves(stages, "loss"), draw_learning_rates(stages)):
        check_svg(svg)


def test_both_stages_are_named_and_their_epochs_run_on() -> None:
    stages = [stage("stage 1", batch_images=[8, 8], epochs=4), stage("stage 2", batch_images=[8, 8], epochs=2)]
    svg = draw_curves(stages, "accuracy")
    assert ">stage 1</text>" in svg
    assert ">stage 2</text>" in svg
    assert ">6</text>" in svg
    assert "Accuracy by epoch; at the end 0.900 in training, 0.800 in validation" in svg


def test_learning_rates_of_both_stages_are_at_the_axis_and_a_rate_of_zero_is_no_trouble() -> None:
    stages = [stage("stage 1", batch_images=[8, 8], epochs=4), stage("stage 2", batch_images=[8], epochs=2, rate=3e-5)]
    stages[0].batches[0]["learning_rate"] = 0.0
    svg = draw_learning_rates(stages)
    assert ">0.001</text>" in svg
    assert ">3e-05</text>" in svg
    assert ">6</text>" in svg
    assert draw_learning_rates(stages[:1]) != svg


def test_drawing_twice_gives_the_same_bytes() -> None:
    stages = [stage("stage 1", batch_images=[8, 3], epochs=2)]
    assert draw_curves(stages, "loss") == draw_curves(stages, "loss")


def test_batches_are_placed_by_the_images_seen() -> None:
    times = figures_training._batch_times(stage("stage 1", batch_images=[6, 2], epochs=2).batches)
    assert times.tolist() == [0.75, 1.0, 1.75, 2.0]


def test_a_last_batch_of_one_image_hardly_moves_the_smoothed_line() -> None:
    smooth = figures_training._smooth(stage("stage 1", batch_images=[32] * 40 + [1], epochs=1).batches, "accuracy")
    assert smooth.min() > 0.95


def test_a_long_history_is_thinned() -> None:
    short, long = ([stage("stage 1", batch_images=[8] * batches, epochs=3)] for batches in (100, 10_000))
    assert len(draw_curves(long, "loss")) < 2 * len(draw_curves(short, "loss"))
    assert len(draw_learning_rates(long)) < 2 * len(draw_learning_rates(short))
