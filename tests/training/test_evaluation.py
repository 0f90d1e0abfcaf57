"""Top-1, top-5 and loss over a data set."""

import numpy as np
import pytest

from zfcuda.data import ArrayDataset, Preprocess
from zfcuda.training import evaluate
from zfcuda.training.evaluation import rank_of_label

from . import tiny


def test_rank_of_label():
    probabilities = np.array([[0.1, 0.6, 0.3], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [np.nan, 0.5, 0.5]], np.float32)
    assert rank_of_label(probabilities, np.array([0, 0, 1, 1])).tolist() == [2, 0, 1, 1]
    assert rank_of_label(probabilities, np.array([1, 2, 2, 0])).tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize("ten_crop", [False, True])
def test_evaluate_is_the_mean_over_all_images(ten_crop):
    net, dataset = tiny.network(), tiny.dataset(23, size=(9, 8))
    preprocess = Preprocess(dataset.images.mean(0, dtype=np.float32), crop=(6, 6), scale=0.02)
    result = evaluate(net, dataset, ten_crop=ten_crop, batch_size=10, preprocess=preprocess)
    centred = 0.02 * (dataset.images - preprocess.mean)
    corners = [(0, 0), (0, 2), (3, 0), (3, 2), (1, 1)] if ten_crop else [(1, 1)]
    crops = [centred[:, top : top + 6, left : left + 6] for top, left in corners]
    if ten_crop:
        crops += [crop[:, :, ::-1] for crop in crops]
    probabilities = np.mean([net.predict(np.ascontiguousarray(crop)) for crop in crops], axis=0)
    of_label = probabilities[np.arange(23), dataset.labels]
    assert result.top1 == pytest.approx((probabilities.argmax(1) == dataset.labels).mean())
    assert result.top5 == 1.0  # of three classes
    assert result.loss == pytest.approx(-np.log(of_label).mean(), rel=1e-5)


def test_evaluate_uses_the_network_s_own_preprocessing():
    net, dataset = tiny.network(), tiny.dataset(20)
    with pytest.raises(ValueError, match="preprocess must be given"):
        evaluate(net, dataset)
    net.preprocess = Preprocess(np.zeros((6, 6, 1), np.float32), crop=(6, 6), scale=0.01)
    assert evaluate(net, dataset) == evaluate(net, dataset, preprocess=net.preprocess)


def test_classes_are_matched_by_name():
    net, dataset = tiny.network(), tiny.dataset(20)
    net.preprocess = Preprocess(np.zeros((6, 6, 1), np.float32), crop=(6, 6), scale=0.01)
    net.classes = tiny.CLASSES
    kept = dataset.labels > 0
    part = ArrayDataset(dataset.images[kept], 2 - dataset.labels[kept], ("right", "middle"))
    assert evaluate(net, part) == evaluate(net, ArrayDataset(part.images, dataset.labels[kept], tiny.CLASSES))


def test_what_does_not_fit_is_refused():
    net, dataset = tiny.network(), tiny.dataset(5)
    preprocess = Preprocess(np.zeros((6, 6, 1), np.float32), crop=(6, 6))
    with pytest.raises(ValueError, match=r"images must have shape \(6, 6, 1\), as trained, got \(7, 6, 1\)"):
        evaluate(net, tiny.dataset(5, size=(7, 6)), preprocess=preprocess)
    with pytest.raises(ValueError, match=r"takes images of \(6, 6, 1\), got crops of \(5, 6, 1\)"):
        evaluate(net, dataset, preprocess=Preprocess(preprocess.mean, crop=(5, 6)))
    two = ArrayDataset(dataset.images, np.zeros(5, np.int32), ("a", "b"))
    with pytest.raises(ValueError, match="knows 3 classes, but the data set has 2"):
        evaluate(net, two, preprocess=preprocess)
    net.classes = tiny.CLASSES
    with pytest.raises(ValueError, match="classes that the network does not know: a"):
        evaluate(net, two, preprocess=preprocess)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluate(net, dataset, preprocess=preprocess, batch_size=0)
