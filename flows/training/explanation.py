"""What a model looks at, and what it gets wrong: measured on held-out rows, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Inputs, taken
from flows.tasks import Classification, Regression, Task
from flows.training.candidate import Candidate

_REPEATS = 5
_MAX_ROWS = 2000
_WORST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Importance:
    """How much worse the answers are without what one input says."""

    input: str
    mean: float
    """of the metric that is lost when the input's values are shuffled"""
    deviation: float
    """over the repetitions"""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model looks at, and what it gets wrong."""

    metric: str
    importances: tuple[Importance, ...]
    """the most important first"""
    worst: tuple[Mapping[str, Any], ...]
    """the held-out rows with the worst answers: the target, the answer, and each input"""

    @property
    def markdown(self) -> str:
        """Both as tables."""
        lines = [
            "# Which columns matter",
            f"\nHow much {self.metric} is lost on held-out rows when the values of a column are shuffled.\n",
            "| column | lost | ± |\n|---|---|---|",
            *(f"| {_cell(each.input)} | {each.mean:.4f} | {each.deviation:.4f} |" for each in self.importances),
            "\n# The worst answers\n",
        ]
        if self.worst:
            names = list(self.worst[0])
            lines.append(f"| {' | '.join(map(_cell, names))} |\n|{'---|' * len(names)}")
            lines += [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in self.worst]
        return "\n".join(lines) + "\n"


def explain_candidate(candidate: Candidate) -> Explanation:
    """Permutation importance of each input, and the rows with the worst answers."""
    task, targets = candidate.dataset.task, candidate.dataset.test.targets
    measure = _measure(task)
    some = _some(len(targets))
    inputs, truth = taken(candidate.inputs, some), targets[some]

    def measured(changed: Inputs) -> float:
        return measure(truth, candidate.predict.judged(candidate.predict(changed)))

    metric = _metric_name(task)
    found = sorted(_importances(inputs, measured), key=lambda each: -each.mean)
    return Explanation(metric, tuple(found), tuple(_worst(candidate)))


def _some(rows: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(0).permutation(rows)[:_MAX_ROWS])


def _metric_name(task: Task) -> str:
    return {Classification: "ROC AUC", Regression: "R²"}.get(type(task), task.score_name)


def _measure(task: Task) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    if isinstance(task, Classification):
        return lambda truth, answers: float(task.ranks(truth, answers).mean())
    if isinstance(task, Regression):
        from sklearn.metrics import r2_score

        return lambda truth, answers: float(r2_score(truth, answers.reshape(truth.shape)))
    return lambda truth, answers: float(task.scores(truth, answers).mean())


def _importances(inputs: Inputs, measured: Callable[[Inputs], float]) -> list[Importance]:
    whole, random, found = measured(inputs), np.random.default_rng(0), []
    for name, values in sorted(inputs.items()):  # a signature has them in any order
        lost = []
        for _ in range(_REPEATS):
            shuffled = values[random.permutation(len(values))]
            lost.append(whole - measured({**inputs, name: shuffled}))
        found.append(Importance(name, float(np.mean(lost)), float(np.std(lost))))
    return found


def _worst(candidate: Candidate) -> list[dict[str, Any]]:
    """The rows with the least score, of classes by the probability of the true one."""
    evaluation, rows = candidate.evaluation, candidate.dataset.test
    task = evaluation.task
    if isinstance(task, Classification):
        probabilities = task.probabilities(evaluation.answers)
        scores = probabilities[np.arange(len(rows)), rows.targets]
        truth: Any = np.array(task.class_names, object)[rows.targets]
        said: Any = np.array(task.class_names, object)[task.predicted(evaluation.answers)]
    elif isinstance(task, Regression):
        scores, truth, said = evaluation.scores, rows.targets, evaluation.answers
    else:
        return []
    worst = np.argsort(scores, kind="stable")[:_WORST_ROWS]
    shown = taken(rows.columns, worst)
    return [
        {"target": _value(truth[row]), "answer": _value(said[row])}
        | {name: _value(values[number]) for name, values in shown.items()}
        for number, row in enumerate(worst)
    ]


def _value(value: Any) -> Any:
    """A number, a text, or what else it is as text."""
    array = np.asarray(value)
    if array.size == 1 and array.dtype.kind in "iuf":
        return float(f"{array.item():.6g}")
    return str(array.item()) if array.size == 1 else str(array.tolist())[:60]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")[:60]
