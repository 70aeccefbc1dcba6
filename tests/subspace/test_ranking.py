"""A group ranked by all that reads it: scores per unit, the curve of variance, and the loss, against direct algebra."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import DataError
from onnx_subprune.model import to_graph
from onnx_subprune.structure import Features, Group, Structure, features_of, infer
from onnx_subprune.structure.weight_blocks import as_blocks
from onnx_subprune.subspace import loss_of_order
from onnx_subprune.subspace.elimination import Term
from onnx_subprune.subspace.ordering import conditional_variance_scores, zca_scores
from onnx_subprune.subspace.ranking import Moments, Ranking, Reader, rank_group

SIZE = 6
METHODS = ("obs", "zca", "conditional-variance", "saw", "wanda", "magnitude", "random")

CHAIN = """g (float[4,5] x) => (float[a,b] y) {
    [m1] h = MatMul(x, w1)
    [m2] y = MatMul(h, w2)
}"""
FORKED = """g (float[4,5] x) => (float[a,b] y, float[c,d] v) {
    [m1] h = MatMul(x, w1)
    [m2] y = MatMul(h, w2)
    [m3] v = MatMul(h, w3)
}"""
FLATTENED = """g (float[4,3,2,2] x) => (float[a,b] y) {
    [c1] h = Conv(x, w1)
    [f] f = Flatten(h)
    [m2] y = MatMul(f, w2)
}"""


def _structure(text: str, **weights: np.ndarray) -> Structure:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    known = onnx.shape_inference.infer_shapes(model)
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    return infer(to_graph(known), {"x": shape})


def _values(constant: object) -> np.ndarray:
    return np.asarray(constant.values)  # type: ignore[attr-defined]


def _drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def _covariance(size: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng((seed, size)).standard_normal((3 * size, size)) * np.linspace(0.5, 2, size)
    return np.asarray(rows.T @ rows / len(rows))


def _readers(structure: Structure, *covariances: np.ndarray, positions: float = 1.0) -> tuple[Group, list[Reader]]:
    (group,) = structure.prunable
    readers = []
    for consumer, covariance in zip(group.consumers, covariances, strict=True):
        view = consumer.weight.view(_values).astype(np.float64)
        features = features_of(structure, consumer)
        blocks = as_blocks(consumer, view)
        # Taps and positions of a feature are rows of its weight.
        rows = blocks.reshape(*blocks.shape[:2], features.count, -1).transpose(0, 1, 3, 2)
        weight = rows.reshape(blocks.shape[0], -1, features.count)
        moments = Moments(lambda covariance=covariance: covariance[None].copy())
        squares = np.diagonal(covariance)[None]
        readers.append(Reader(features, lambda w=weight: w, moments, lambda s=squares: s, positions))
    return group, readers


def _chain() -> tuple[Group, list[Reader]]:
    return _readers(_structure(CHAIN, w1=_drawn(5, SIZE), w2=_drawn(SIZE, 3)), _covariance(SIZE))


def _forked(scale: float = 1.0) -> tuple[Group, list[Reader]]:
    structure = _structure(FORKED, w1=_drawn(5, SIZE), w2=_drawn(SIZE, 3), w3=_drawn(SIZE, 2))
    return _readers(structure, _covariance(SIZE), scale * _covariance(SIZE, seed=1))


def _is_ranking(ranking: Ranking) -> None:
    assert sorted(ranking.order.tolist()) == list(range(SIZE))
    assert ranking.share[0] == 0
    assert ranking.share[-1] == 1
    assert (np.diff(ranking.share) >= -1e-12).all()
    assert (np.diff(ranking.loss) <= 0).all()
    assert ranking.loss[-1] == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_an_order_and_curves_that_never_turn(method: str) -> None:
    group, readers = _forked()
    _is_ranking(rank_group(group, readers, method, 0, _values))


@pytest.mark.parametrize(
    ("method", "scores"), [("zca", zca_scores), ("conditional-variance", conditional_variance_scores)]
)
def test_scores_of_one_reader_are_those_of_its_covariance(method: str, scores: object) -> None:
    group, readers = _chain()
    ranking = rank_group(group, readers, method, 0, _values)
    expected = np.argsort(-scores(_covariance(SIZE)), kind="stable")  # type: ignore[operator]
    assert ranking.order.tolist() == expected.tolist()


def test_saw_and_wanda_look_at_the_weight_that_reads() -> None:
    group, readers = _chain()
    weight = np.abs(_drawn(SIZE, 3).astype(np.float64)).sum(axis=1)
    by_weight = rank_group(group, readers, "saw", 0, _values)
    assert by_weight.order.tolist() == np.argsort(-weight, kind="stable").tolist()
    deviation = np.sqrt(np.diagonal(_covariance(SIZE)))
    by_both = rank_group(group, readers, "wanda", 0, _values)
    assert by_both.order.tolist() == np.argsort(-weight * deviation, kind="stable").tolist()


def test_magnitude_looks_at_the_weight_that_makes() -> None:
    group, readers = _chain()
    made = np.abs(_drawn(5, SIZE).astype(np.float64)).sum(axis=0)
    ranking = rank_group(group, readers, "magnitude", 0, _values)
    assert ranking.order.tolist() == np.argsort(-made, kind="stable").tolist()


def test_a_random_order_depends_on_the_seed_alone() -> None:
    group, readers = _chain()
    first, again, other = (rank_group(group, readers, "random", seed, _values).order.tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_readers_count_alike_whatever_the_scale_of_what_they_read() -> None:
    """Scores are shares: a reader of large values has no more say than one of small ones."""
    (group, readers), (same, larger) = _forked(), _forked(scale=1e6)
    for method in ("zca", "conditional-variance", "wanda"):
        small, large = rank_group(group, readers, method, 0, _values), rank_group(same, larger, method, 0, _values)
        assert small.order.tolist() == large.order.tolist()
        np.testing.assert_allclose(small.share, large.share, atol=1e-9)


def test_the_loss_is_that_of_least_squares_at_all_readers() -> None:
    group, readers = _forked()
    ranking = rank_group(group, readers, "zca", 0, _values)
    for kept in range(1, SIZE):
        total = 0.0
        stays, goes = ranking.order[:kept], ranking.order[kept:]
        for reader in readers:
            covariance, (weight,) = reader.moments.covariance[0], reader.weight()
            across = covariance[np.ix_(stays, goes)]
            rest = covariance[np.ix_(goes, goes)] - across.T @ np.linalg.solve(covariance[np.ix_(stays, stays)], across)
            total += np.trace(weight[:, goes] @ rest @ weight[:, goes].T)
        assert ranking.loss[kept] == pytest.approx(total, rel=1e-4)


def test_errors_count_as_often_as_a_layer_is_applied() -> None:
    structure = _structure(CHAIN, w1=_drawn(5, SIZE), w2=_drawn(SIZE, 3))
    once = rank_group(*_readers(structure, _covariance(SIZE)), "saw", 0, _values)
    often = rank_group(*_readers(structure, _covariance(SIZE), positions=9.0), "saw", 0, _values)
    np.testing.assert_allclose(often.loss, 9 * once.loss, rtol=1e-12)
    np.testing.assert_allclose(often.share, once.share)


def test_readers_of_the_same_rows_are_one_term() -> None:
    group, (first, second) = _forked()
    shared = [first, Reader(second.features, second.weight, first.moments, second.squares)]
    ranking = rank_group(group, shared, "saw", 0, _values)
    both = np.concatenate([first.weight()[0], second.weight()[0]])
    expected = loss_of_order([Term(_covariance(SIZE), both, np.arange(SIZE))], ranking.order)
    np.testing.assert_allclose(ranking.loss, expected, rtol=1e-12)


def test_positions_of_a_flattened_map_are_rows_of_the_weight() -> None:
    """[N, 6, 2, 2] flattened: each unit has four columns, which its covariance does not tell apart."""
    w2 = _drawn(SIZE * 4, 3)
    structure = _structure(FLATTENED, w1=_drawn(SIZE, 3, 1, 1), w2=w2)
    group, readers = _readers(structure, _covariance(SIZE))
    assert readers[0].features.inner == 4
    ranking = rank_group(group, readers, "saw", 0, _values)
    expected = np.abs(w2.astype(np.float64)).reshape(SIZE, -1).sum(axis=1)
    assert ranking.order.tolist() == np.argsort(-expected, kind="stable").tolist()


def test_what_no_weight_reads_adds_its_terms_to_the_loss() -> None:
    """Queries times keys: without a unit the sum is off by what the unit added."""
    structure = _structure(CHAIN, w1=_drawn(5, SIZE), w2=_drawn(SIZE, 3))
    group, (reader,) = _readers(structure, _covariance(SIZE), positions=2.0)
    ones = np.ones((1, 1, SIZE))
    product = Reader(reader.features, lambda: ones, reader.moments, reader.squares, 2.0, corrected=False)
    for method in ("obs", "zca"):
        ranking = rank_group(group, [product], method, 0, _values)
        for kept in range(SIZE):
            goes = ranking.order[kept:]
            expected = 2.0 * _covariance(SIZE)[np.ix_(goes, goes)].sum()
            reached = [
                2.0 * _covariance(SIZE)[np.ix_(ranking.order[k:], ranking.order[k:])].sum() for k in range(kept, SIZE)
            ]
            # The curve never rises, whatever cancels.
            assert ranking.loss[kept] == pytest.approx(max(expected, *reached, 0.0), rel=1e-9)


def test_obs_takes_the_unit_out_that_costs_least() -> None:
    group, readers = _chain()
    ranking = rank_group(group, readers, "obs", 0, _values)
    covariance, (weight,) = _covariance(SIZE), readers[0].weight()
    costs = []
    for unit in range(SIZE):
        stays = [other for other in range(SIZE) if other != unit]
        across = covariance[stays, unit]
        left = covariance[unit, unit] - across @ np.linalg.solve(covariance[np.ix_(stays, stays)], across)
        costs.append(float(weight[:, unit] @ weight[:, unit]) * left)
    assert ranking.order[-1] == np.argmin(costs)
    assert ranking.loss[SIZE - 1] == pytest.approx(min(costs), rel=1e-4)


def test_a_network_of_zeros_ranks_in_order() -> None:
    structure = _structure(CHAIN, w1=_drawn(5, SIZE), w2=np.zeros((SIZE, 3), np.float32))
    ranking = rank_group(*_readers(structure, np.zeros((SIZE, SIZE))), "obs", 0, _values)
    assert ranking.order.tolist() == list(range(SIZE))
    assert not ranking.loss.any()
    assert ranking.share.tolist() == [0.0, *[1.0] * SIZE]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_told_with_their_group(value: float) -> None:
    weight = _drawn(SIZE, 3)
    weight[2, 1] = value
    group, readers = _readers(_structure(CHAIN, w1=_drawn(5, SIZE), w2=weight), _covariance(SIZE))
    with pytest.raises(DataError, match="expected finite weights behind 'm1', found NaN or infinity"):
        rank_group(group, readers, "zca", 0, _values)


def test_covariances_are_computed_once_until_they_are_released() -> None:
    calls: list[int] = []

    def compute() -> np.ndarray:
        calls.append(1)
        return _covariance(3)[None]

    moments = Moments(compute)
    assert moments.covariance is moments.covariance
    assert moments.scores("zca") is moments.scores("zca")
    assert len(calls) == 1
    moments.release()
    # Scores stay known; the covariance is asked for again.
    assert moments.scores("zca").shape == (1, 3)
    assert len(calls) == 1
    np.testing.assert_array_equal(moments.covariance, _covariance(3)[None])
    assert len(calls) == 2


def test_features_that_no_unit_owns_stay() -> None:
    """Two layers side by side in one matrix: the columns of the other are always there to recover from."""
    text = """g (float[4,5] x) => (float[a,b] y) {
        [m1] h = MatMul(x, w1)
        [c] k = Concat <axis=1> (h, x)
        [m2] y = MatMul(k, w2)
    }"""
    structure = _structure(text, w1=_drawn(5, SIZE), w2=_drawn(SIZE + 5, 3))
    group, readers = _readers(structure, _covariance(SIZE + 5))
    features: Features = readers[0].features
    assert features.units(group.atom).tolist() == [[*range(SIZE), *[-1] * 5]]
    ranking = rank_group(group, readers, "saw", 0, _values)
    covariance, (weight,) = _covariance(SIZE + 5), readers[0].weight()
    goes, stays = np.arange(SIZE), np.arange(SIZE, SIZE + 5)
    across = covariance[np.ix_(stays, goes)]
    rest = covariance[np.ix_(goes, goes)] - across.T @ np.linalg.solve(covariance[np.ix_(stays, stays)], across)
    assert ranking.loss[0] == pytest.approx(np.trace(weight[:, goes] @ rest @ weight[:, goes].T), rel=1e-4)
