import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.stats import spearmanr

from zfcuda.analysis.similarity import rank_correlation, ranks, structural_similarity

from .nets import noise


def ssim_of_7_x_7(a, b):
    """Wang et al.'s formula with windows of SciPy's, of one channel."""
    a, b = (x.astype(np.float64) / np.abs(x).max() for x in (a, b))
    mean = lambda x: uniform_filter(x, 7)[3:-3, 3:-3]  # noqa: E731
    c1, c2 = 0.02**2, 0.06**2
    cov, var = mean(a * b) - mean(a) * mean(b), mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
    top = (2 * mean(a) * mean(b) + c1) * (2 * cov + c2)
    return (top / ((mean(a) ** 2 + mean(b) ** 2 + c1) * (var + c2))).mean()


class TestRankCorrelation:
    @pytest.mark.parametrize("levels", [2, 5, 1000])
    def test_is_spearmans_with_ties(self, levels):
        rng = np.random.default_rng(levels)
        a, b = (rng.integers(0, levels, (9, 8, 3)).astype(np.float32) for _ in range(2))
        for other in (b, a + b, -a, a**3):
            assert rank_correlation(a, other) == pytest.approx(spearmanr(a.ravel(), other.ravel())[0], abs=1e-12)

    def test_ranks_are_centred_and_ties_share_theirs(self):
        # Of 10, 5, 5, 7 the ranks are 4, 1.5, 1.5, 3; their mean is 2.5.
        assert ranks(np.array([[10, 5], [5, 7]])).tolist() == [1.5, -1.0, -1.0, 0.5]

    def test_order_is_all_that_counts(self):
        a = noise((6, 6))
        assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
        assert rank_correlation(a, -np.exp(a)) == pytest.approx(-1)

    @pytest.mark.parametrize(
        "bad", [np.zeros((4, 4)), np.full((4, 4), 3.0), np.full((4, 4), np.nan), np.diag([np.inf, 0])]
    )
    def test_no_order_is_nan(self, bad):
        assert np.isnan(rank_correlation(bad, noise(bad.shape)))
        assert np.isnan(rank_correlation(noise(bad.shape), bad))

    def test_shapes(self):
        with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 2\)"):
            rank_correlation(np.ones((2, 3)), np.ones((3, 2)))


class TestStructuralSimilarity:
    def test_is_wangs(self):
        a, b = noise((20, 17), 1), noise((20, 17), 2)
        for other in (b, a + b, a + 0.1 * b, -a):
            assert structural_similarity(a, other) == pytest.approx(ssim_of_7_x_7(a, other), abs=1e-12)

    def test_channels_are_averaged(self):
        a, b = noise((12, 12, 3), 1), noise((12, 12, 3), 2)
        a, b = (x / np.abs(x).max(axis=(0, 1)) for x in (a, b))  # so that none of them is scaled
        alone = [ssim_of_7_x_7(a[..., c], b[..., c]) for c in range(3)]
        assert structural_similarity(a, b) == pytest.approx(np.mean(alone), abs=1e-6)

    def test_by_hand(self):
        """One window, two pixels: means 0 and 0, variances 1 and 1, covariance -1."""
        a = np.array([[1.0, -1.0]])
        assert structural_similarity(a, 5 * a) == pytest.approx(1)
        assert structural_similarity(a, -a) == pytest.approx((0.06**2 - 2) / (0.06**2 + 2))

    def test_a_map_and_what_is_nothing_like_it(self):
        a = noise((40, 40, 1))
        assert structural_similarity(a, a) == pytest.approx(1)
        assert abs(structural_similarity(a, noise((40, 40, 1), 1))) < 0.05

    def test_scale_does_not_count(self):
        a = noise((9, 9))
        assert structural_similarity(a, 1e-20 * a) == pytest.approx(1)

    @pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.inf), np.full((4, 4), np.nan)])
    def test_no_map_is_nan(self, bad):
        assert np.isnan(structural_similarity(bad, noise((4, 4))))
        assert np.isnan(structural_similarity(noise((4, 4)), bad))

    @pytest.mark.parametrize("shapes", [((4, 4), (4, 5)), ((4,), (4,)), ((2, 4, 4, 1), (2, 4, 4, 1))])
    def test_shapes(self, shapes):
        with pytest.raises(ValueError, match="must have one shape"):
            structural_similarity(*map(noise, shapes))
