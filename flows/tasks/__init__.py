"""What a model is asked for: the form of targets and answers, the score of a row, and the metrics of all rows."""

from flows.tasks.classification import Classification
from flows.tasks.multilabel import MultiLabel
from flows.tasks.own import OwnTask
from flows.tasks.regression import Regression
from flows.tasks.task import CannotEvaluate, Evaluation, Task, UnusableTargets

__all__ = [
    "CannotEvaluate",
    "Classification",
    "Evaluation",
    "MultiLabel",
    "OwnTask",
    "Regression",
    "Task",
    "UnusableTargets",
]
