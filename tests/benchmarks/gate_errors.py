"""How often does the gate promote what is worse, and hold up what is not; and how long does it take for many rows?"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from flows.gate.gates import Facts, judge
from flows.gate.noninferiority import Verdict, compare_counts
from flows.recipes.finding import find_recipe
from flows.training.champion import Champion
from flows.training.dataset import Dataset, load_dataset
from flows.training.export import export
from flows.training.inspection import inspect
from flows.training.predictor import load_predictor
from flows.training.slices import slices
from tests.benchmarks.paired_scores import FAMILIES, simulate_means, t_test_passes
from tests.benchmarks.report import Measurement

_PAIRS = 20_000  # with a thousand, a rate of 4 % would come out as anything from 3 to 5 %
_PAIRS_OF_SCORES = 1000
_MANY_ROWS = 1_000_000
DIFFERING = {"iris": 0.009, "digits": 0.01}
"""share of the held-out rows that one retraining has right and another wrong, in trainings with 60 and 15 seeds"""
HELD_OUT = {"iris": 30, "digits": 355}


def simulate(recipe: str, true_difference: float, pairs: int = _PAIRS, seed: int = 0) -> Mapping[Verdict, float]:
    """
    Verdicts on pairs of models of which the candidate is better by `true_difference`, as shares of all pairs.

    Each pair answers as many rows as the recipe holds out, with the recipe's margin and confidence.
    """
    base, thresholds, rows = DIFFERING[recipe], find_recipe(recipe).thresholds, HELD_OUT[recipe]
    won, lost = base + max(0.0, true_difference), base + max(0.0, -true_difference)
    drawn = np.random.default_rng(seed).multinomial(rows, [won, lost, 1 - won - lost], pairs)
    verdicts: Counter[Verdict] = Counter()
    for (each_won, each_lost, _), times in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        found = compare_counts(rows, int(each_won), int(each_lost), thresholds.margin, thresholds.confidence)
        verdicts[found.verdict] += int(times)
    return {verdict: verdicts[verdict] / pairs for verdict in Verdict}


def margin_of(recipe: str) -> float:
    """The margin that a recipe sets."""
    margin = find_recipe(recipe).thresholds.margin
    assert margin is not None
    return margin


def measure() -> list[Measurement]:
    """The rates of the gate's errors, and the time that it takes for a million rows."""
    found = []
    for recipe in DIFFERING:
        margin, level = margin_of(recipe), 100 * (1 - find_recipe(recipe).thresholds.confidence)
        worse, equal, better = (simulate(recipe, difference) for difference in (-margin, 0.0, margin))
        passed, rejected = Verdict.PASSED, Verdict.REJECTED
        name = f"{recipe}, {_PAIRS} pairs"
        found += [
            Measurement(f"{name}, worse by {margin:g}: passed", 100 * worse[passed], "%", at_most=level),
            Measurement(f"{name}, equal: rejected", 100 * equal[rejected], "%", at_most=level),
            Measurement(f"{name}, equal: inconclusive", 100 * equal[Verdict.INCONCLUSIVE], "%"),
            Measurement(f"{name}, better by {margin:g}: rejected", 100 * better[rejected], "%", at_most=level),
            Measurement(f"{name}, better by {margin:g}: inconclusive", 100 * better[Verdict.INCONCLUSIVE], "%"),
        ]
    many = Measurement("1,000,000 rows of iris evaluated and judged", seconds_for_many_rows(), "s", at_most=5)
    return [*found, *_of_means(), many]


def _of_means() -> Iterator[Measurement]:
    """The same rates where rows have scores other than right and wrong: the highest of all kinds of differences."""
    for rows in (30, 1000):
        name = f"scores of {len(FAMILIES)} kinds, {rows} rows, {_PAIRS_OF_SCORES} pairs each"
        for what, worse, margin, verdict in (
            ("worse by a margin of 0.1: passed", 0.1, 0.1, Verdict.PASSED),
            ("worse by 0.1, more than the default margin: passed", 0.1, None, Verdict.PASSED),
            ("equal, default margin: rejected", 0.0, None, Verdict.REJECTED),
            ("equal, default margin: inconclusive", 0.0, None, Verdict.INCONCLUSIVE),
        ):
            rates = {
                family: simulate_means(family, rows, worse, margin, _PAIRS_OF_SCORES)[verdict] for family in FAMILIES
            }
            most = max(rates, key=lambda family: rates[family])
            limit = None if verdict is Verdict.INCONCLUSIVE else 5.0
            yield Measurement(f"{name}, {what}", 100 * rates[most], "%", at_most=limit, besides=f"most for {most}")
    usual = {family: t_test_passes(family, 30, 0.02, _PAIRS_OF_SCORES) for family in FAMILIES}
    most = max(usual, key=lambda family: usual[family])
    what = "a t-test instead, 30 rows, worse by a margin of 0.02: passed"
    yield Measurement(what, 100 * usual[most], "%", besides=f"most for {most}")


def seconds_for_many_rows(rows: int = _MANY_ROWS, clock: Callable[[], float] = time.perf_counter) -> float:
    """Evaluating an Iris model on `rows` rows and judging it against itself, without the start of TensorFlow."""
    recipe = find_recipe("iris")
    small = load_dataset(recipe)
    times = np.arange(rows) % len(small.train)
    test = small.train.take(times)
    many = Dataset(small.train, test, small.feature_names, small.task, small.digest)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "saved_model"
        export(recipe.build(small.train.examples), small, "iris", path)
        started = clock()
        predict, inspection = load_predictor(path), inspect(path)
        evaluation = small.task.evaluate(test.targets, predict.judged(predict(test.inputs)))
        champion = Champion(1, path, inspection, evaluation)
        cut = slices(evaluation, many, small.feature_names)
        judge(Facts(evaluation, inspection, cut, champion), recipe.thresholds)
        return clock() - started
