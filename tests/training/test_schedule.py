"""How the learning rate falls."""

import pytest

from zfcuda.training import Cosine, Fixed, Linear, Plateau, Step, Warmup


def test_fixed():
    assert [Fixed()(epoch, []) for epoch in range(3)] == [1, 1, 1]


def test_step():
    factors = [Step((2, 4), factor=0.1)(epoch, []) for epoch in range(6)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_linear():
    assert [Linear(4)(epoch, []) for epoch in range(6)] == pytest.approx([1, 0.75, 0.5, 0.25, 0.25, 0.25])


def test_cosine():
    factors = [Cosine(4)(epoch, []) for epoch in range(6)]
    assert factors == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0.5 - 0.5**1.5, 0.5 - 0.5**1.5])


def test_warmup():
    factors = [Warmup(Linear(8), 3)(epoch, []) for epoch in range(6)]
    assert factors == pytest.approx([1 / 4, 2 / 4 * 7 / 8, 3 / 4 * 6 / 8, 5 / 8, 4 / 8, 3 / 8])
    # What the schedule looks at is what it would see without.
    plateau = Plateau(patience=1)
    assert Warmup(plateau, 1)(3, [0.5, 0.5, 0.5]) == plateau(3, [0.5, 0.5, 0.5]) == pytest.approx(0.01)


def test_plateau():
    errors = [0.5, 0.4, 0.41, 0.3, 0.31, 0.2999, 0.35, 0.33, 0.1, 0.2]
    schedule = Plateau(patience=2, factor=0.5, margin=0.01)
    factors = [schedule(epoch, errors[:epoch]) for epoch in range(len(errors) + 1)]
    # 0.3 is the lowest; 0.31 and 0.2999 do not fall below it by the margin, nor do 0.35 and 0.33.
    assert factors == [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step((3, 2)), "epochs must be positive and ascending"),
        (lambda: Step((0,)), "epochs must be positive and ascending"),
        (lambda: Step((2,), factor=1.0), "factor must be between 0 and 1"),
        (lambda: Linear(0), "epochs must be at least 1"),
        (lambda: Cosine(0), "epochs must be at least 1"),
        (lambda: Warmup(Fixed(), 0), "epochs must be at least 1"),
        (lambda: Plateau(patience=0), "patience must be at least 1"),
        (lambda: Plateau(factor=0.0), "factor must be between 0 and 1"),
    ],
)
def test_bad_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
