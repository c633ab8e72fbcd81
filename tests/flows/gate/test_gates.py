"""What a candidate has to show before it is published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.gate.checks import Check
from flows.gate.gates import Facts, GateDecision, judge
from flows.gate.noninferiority import Verdict
from flows.recipes import Thresholds
from flows.tasks import Classification, Evaluation, MultiLabel, OwnTask, Regression, Task
from flows.training.champion import Champion, GoldenAnswers
from flows.training.inspection import Inspection, Signature
from flows.training.slices import Slice
from tests.pipelines import Pipeline

ROWS = 100
THRESHOLDS = Thresholds(
    min_accuracy=0.9, min_macro_f1=0.4, max_log_loss=5.0, margin=0.1, min_slice_rows=10, max_bytes=1000
)
PREDICT = "tensorflow/serving/predict"
SIGNATURE = Signature(PREDICT, {"input": "float32 [-1, 4]"}, {"output": "float32 [-1, 2]"})
TWO = Classification(("no", "yes"))
INSPECTION = Inspection({"serving_default": SIGNATURE}, ("no", "yes"), frozenset(), 500)


def evaluation(wrong: int = 0, first: int = 0) -> Evaluation:
    """Two classes in turn; `wrong` rows from row `first` on are taken for the other class, all with certainty."""
    classes = np.arange(ROWS) % 2
    predicted = classes.copy()
    predicted[first : first + wrong] ^= 1
    return TWO.evaluate(classes, np.eye(2, dtype=np.float32)[predicted])


def champion(wrong: int = 0, first: int = 0, **changed: Any) -> Champion:
    return replace(Champion(3, Path("3"), INSPECTION, evaluation(wrong, first)), **changed)


def decided(
    candidate: Evaluation | None = None,
    inspection: Inspection = INSPECTION,
    slices: tuple[Slice, ...] = (),
    live: Champion | None = None,
    thresholds: Thresholds = THRESHOLDS,
    allow_breaking: bool = False,
) -> GateDecision:
    """A decision on a perfect candidate, where nothing else is given."""
    return judge(Facts(candidate or evaluation(), inspection, slices, live), thresholds, allow_breaking)


def check(decision: GateDecision, name: str) -> Check:
    return next(each for each in decision.checks if each.check == name)


@pytest.mark.parametrize(
    ("wrong", "required", "verdict"),
    [(10, 0.9, Verdict.PASSED), (11, 0.9, Verdict.REJECTED), (0, 1.0, Verdict.PASSED), (1, 1.0, Verdict.REJECTED)],
)
def test_the_gate_passes_at_its_limit(wrong: int, required: float, verdict: Verdict) -> None:
    """As much as is required is enough; less is rejected, with both numbers in the reason."""
    decision = decided(evaluation(wrong), thresholds=replace(THRESHOLDS, min_accuracy=required))
    assert decision.verdict is verdict
    if wrong == 11:
        assert decision.reason == "accuracy 0.8900 is below 0.9000"
        assert "| accuracy | 0.8900 | >= 0.9000 | rejected |" in decision.markdown


@pytest.mark.parametrize(
    ("thresholds", "verdict", "told"),
    [
        ({"at_least": {"roc_auc": 0.94}}, Verdict.PASSED, "| roc_auc | 0.9500 | >= 0.9400 | passed |"),
        ({"at_least": {"roc_auc": 0.96}}, Verdict.REJECTED, "roc_auc 0.9500 is below 0.9600"),
        ({"at_least": {"recall_yes": 0.99}}, Verdict.REJECTED, "recall_yes 0.9600 is below 0.9900"),
        ({"at_most": {"ece": 0.04}}, Verdict.REJECTED, "ece 0.0500 is above 0.0400"),
        ({"at_least": {"r2": 0.9}}, Verdict.INCONCLUSIVE, "r2 is not defined for these rows and answers, which have"),
    ],
)
def test_any_metric_can_have_a_limit(thresholds: dict[str, Any], verdict: Verdict, told: str) -> None:
    """Of all rows or of one class, above or below; where one is not measured, those that are are named."""
    decision = decided(evaluation(5), thresholds=Thresholds(**thresholds))
    assert decision.verdict is verdict
    assert told in decision.markdown


@pytest.mark.parametrize(
    ("name", "thresholds"),
    [("macro F1", {"min_macro_f1": 0.96}), ("log loss", {"max_log_loss": 0.5}), ("size", {"max_bytes": 499})],
)
def test_every_absolute_threshold_can_reject(name: str, thresholds: dict[str, Any]) -> None:
    """Five wrong rows of 100, given with certainty, are 0.95 of macro F1 and 0.8 of log loss."""
    decision = decided(evaluation(5), thresholds=replace(THRESHOLDS, **thresholds))
    assert [each.check for each in decision.checks if each.verdict is Verdict.REJECTED] == [name]
    assert decided(evaluation(5)).verdict is Verdict.PASSED


def test_a_model_that_answers_nan_is_rejected_however_accurate() -> None:
    """Probabilities that are none are found even where the likeliest class is right."""
    broken = TWO.evaluate(np.zeros(10, np.int64), np.full((10, 2), np.nan, np.float32))
    assert broken.metrics["accuracy"] == 1.0
    decision = decided(broken)
    assert decision.verdict is Verdict.REJECTED
    assert {each.check for each in decision.checks if each.verdict is not Verdict.PASSED} >= {"probabilities"}


def test_a_first_version_is_reported_to_be_one() -> None:
    """Without a champion the absolute thresholds decide, and the report says so."""
    decision = decided()
    assert decision.verdict is Verdict.PASSED
    assert check(decision, "champion").why.startswith("first version")
    assert decision.comparison is None
    assert "non-inferiority" not in decision.markdown


@pytest.mark.parametrize(
    ("candidate", "live", "verdict"),
    [
        (evaluation(5), champion(5), Verdict.PASSED),
        (evaluation(5), champion(5, first=50), Verdict.PASSED),
        (evaluation(0), champion(40), Verdict.PASSED),
        (evaluation(9), champion(0), Verdict.INCONCLUSIVE),
        (evaluation(40), champion(0), Verdict.REJECTED),
        (evaluation(10), champion(0), Verdict.INCONCLUSIVE),
    ],
    ids=["same rows wrong", "other rows wrong", "better", "perhaps worse", "worse", "at the margin"],
)
def test_a_candidate_is_compared_with_the_champion(candidate: Evaluation, live: Champion, verdict: Verdict) -> None:
    """Three verdicts on the same 100 rows, with a margin of 0.1."""
    decision = decided(candidate, live=live, thresholds=replace(THRESHOLDS, min_accuracy=0.5))
    assert decision.verdict is check(decision, "non-inferiority").verdict is verdict
    assert check(decision, "champion").measured.startswith("version 3, accuracy")


def test_the_same_answers_are_a_clear_pass() -> None:
    """Also for few rows and no margin at all."""
    few = TWO.evaluate(np.array([0, 1, 0]), np.eye(2, dtype=np.float32)[[0, 1, 1]])
    thresholds = replace(THRESHOLDS, margin=0.0, min_accuracy=0.0)
    decision = decided(few, live=champion(evaluation=few), thresholds=thresholds)
    assert check(decision, "non-inferiority").verdict is Verdict.PASSED
    assert "the same answer" in check(decision, "non-inferiority").why


def test_inconclusive_is_not_passed_unless_the_recipe_says_so() -> None:
    """The report says how many more rows would decide; the check stays inconclusive when the recipe lets it pass."""
    decision = decided(evaluation(8), live=champion())
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.comparison is not None
    assert f"about {decision.comparison.more_rows} more would decide" in decision.reason
    lenient = decided(evaluation(8), live=champion(), thresholds=replace(THRESHOLDS, inconclusive_passes=True))
    assert (lenient.verdict, lenient.reason) == (Verdict.PASSED, "")
    assert check(lenient, "non-inferiority").verdict is Verdict.INCONCLUSIVE


def test_what_is_rejected_is_not_inconclusive() -> None:
    """A single rejection outweighs what is open, also where the recipe lets open questions pass."""
    thresholds = replace(THRESHOLDS, inconclusive_passes=True, max_bytes=1)
    assert decided(evaluation(8), live=champion(), thresholds=thresholds).verdict is Verdict.REJECTED


def test_a_slice_far_below_the_whole_rejects() -> None:
    """The slice is named with its accuracy; one that is too small is not judged; others are fine."""
    whole = (Slice("class", "no", 50, 0.95), Slice("class", "yes", 50, 0.76), Slice("region", "north", 9, 0.0))
    assert decided(slices=whole).verdict is Verdict.PASSED
    assert check(decided(slices=whole), "slices by region").why == "no slice has 10 rows"
    far = (*whole, Slice("region", "south", 10, 0.7), Slice("region", "east", 81, 1.0))
    decision = decided(slices=far)
    assert decision.verdict is Verdict.REJECTED
    assert "region south (0.7000 of 10 rows)" in decision.reason
    assert check(decision, "slices by class").verdict is Verdict.PASSED


def test_a_champion_that_cannot_be_evaluated_is_reported_and_holds_the_candidate_up() -> None:
    """It is inconclusive with the reason and the next step, and passes only when the break is meant."""
    live = Champion(3, Path("3"), INSPECTION, None, None, ("it cannot be evaluated: its input has shape [?, 7]",))
    decision = decided(live=live)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert "version 3 is live and it cannot be evaluated: its input has shape [?, 7]" in decision.reason
    assert "--allow-breaking" in decision.reason
    allowed = decided(live=live, allow_breaking=True)
    assert allowed.verdict is Verdict.PASSED
    assert "its input has shape [?, 7]" in check(allowed, "champion").why


def test_a_champion_whose_graph_is_spoiled_is_reported() -> None:
    """Then nobody knows what its clients use either, which is no fault of the candidate."""
    live = Champion(3, Path("3"), None, None, None, ("it cannot be evaluated: saved_model.pb cannot be read",))
    decision = decided(live=live)
    assert decision.verdict is check(decision, "contract").verdict is Verdict.INCONCLUSIVE
    assert decided(live=live, allow_breaking=True).verdict is Verdict.PASSED


def test_notes_on_the_champion_are_in_the_report() -> None:
    """What makes the comparison less certain does not stop it."""
    decision = decided(live=champion(notes=("it was trained on other data",)))
    assert decision.verdict is Verdict.PASSED
    assert "it was trained on other data" in decision.markdown


def changed(**signature: Any) -> Inspection:
    return replace(INSPECTION, signatures={"serving_default": replace(SIGNATURE, **signature)})


@pytest.mark.parametrize(
    ("inspection", "reported"),
    [
        (changed(outputs={"scores": "float32 [-1, 2]"}), "output 'output' of 'serving_default' is gone"),
        (changed(outputs={"output": "float64 [-1, 2]"}), "is float64 [-1, 2] instead of float32 [-1, 2]"),
        (changed(inputs={"input": "float32 [-1, 5]"}), "is float32 [-1, 5] instead of float32 [-1, 4]"),
        (
            changed(inputs={"input": "float32 [-1, 4]", "mask": "bool [-1]"}),
            "input 'mask' of 'serving_default' is asked for in addition",
        ),
        (changed(method="tensorflow/serving/classify"), "for tensorflow/serving/classify instead of"),
        (replace(INSPECTION, signatures={"other": SIGNATURE}), "signature 'serving_default' is gone"),
        (replace(INSPECTION, class_names=("yes", "no")), "classes are ['yes', 'no'] instead of ['no', 'yes']"),
        (replace(INSPECTION, class_names=()), "classes are [] instead of ['no', 'yes']"),
    ],
)
def test_a_breaking_change_must_be_allowed(inspection: Inspection, reported: str) -> None:
    """The report shows the difference, whether it is allowed or not."""
    decision = decided(inspection=inspection, live=champion())
    assert (decision.verdict, check(decision, "contract").verdict) == (Verdict.REJECTED, Verdict.REJECTED)
    assert reported in decision.reason
    assert "--allow-breaking" in decision.reason
    allowed = decided(inspection=inspection, live=champion(), allow_breaking=True)
    assert allowed.verdict is Verdict.PASSED
    assert reported in check(allowed, "contract").why


def test_what_is_only_added_breaks_nobody() -> None:
    """A new signature, a new output and a new class at the end are reported, and pass."""
    outputs = {**SIGNATURE.outputs, "logits": "float32 [-1, 2]"}
    signatures = {"serving_default": replace(SIGNATURE, outputs=outputs), "embed": SIGNATURE}
    added = replace(INSPECTION, signatures=signatures, class_names=("no", "yes", "perhaps"))
    decision = decided(inspection=added, live=champion())
    assert decision.verdict is Verdict.PASSED
    assert "output 'logits' of 'serving_default', signature 'embed'" in check(decision, "contract").why


def golden(classes: list[int]) -> NDArray[np.float32]:
    return np.eye(2, dtype=np.float32)[classes]


@pytest.mark.parametrize(
    ("after", "reported"),
    [
        (golden([1, 1, 1, 1, 0]), "row 0: class 0 -> class 1, row 1: class 0 -> class 1, row 2: class 0 -> class 1"),
        (np.ones((5, 3), np.float32), "shape [5, 3] instead of [5, 2]"),
        (None, "does not answer the champion's golden rows"),
    ],
)
def test_golden_rows_that_are_answered_differently_must_be_allowed(
    after: NDArray[np.float32] | None, reported: str
) -> None:
    """Classes in another order, another shape, no answer at all."""
    live = champion(golden=GoldenAnswers(golden([0, 0, 0, 1, 0]), after))
    decision = decided(live=live)
    assert decision.verdict is Verdict.REJECTED
    assert reported in decision.reason
    assert decided(live=live, allow_breaking=True).verdict is Verdict.PASSED


def test_a_doubtful_golden_row_may_change() -> None:
    """Retraining changes one answer of five; it is reported."""
    decision = decided(live=champion(golden=GoldenAnswers(golden([0, 0, 0, 1, 1]), golden([0, 0, 0, 1, 0]))))
    assert decision.verdict is Verdict.PASSED
    assert check(decision, "golden rows").why == "row 4: class 1 -> class 0"


def test_unsafe_ops_must_be_allowed_by_name() -> None:
    """Each op on its own; the message says where to name it."""
    unsafe = replace(INSPECTION, unsafe_ops=frozenset({"ReadFile", "PyFunc"}))
    decision = decided(inspection=unsafe)
    assert decision.verdict is Verdict.REJECTED
    assert "runs PyFunc, ReadFile" in decision.reason
    half = decided(inspection=unsafe, thresholds=replace(THRESHOLDS, allowed_ops=("ReadFile",)))
    assert "runs PyFunc, which" in half.reason
    both = decided(inspection=unsafe, thresholds=replace(THRESHOLDS, allowed_ops=("ReadFile", "PyFunc")))
    assert both.verdict is Verdict.PASSED


def test_a_breaking_change_is_no_excuse_for_a_bad_model() -> None:
    """``--allow-breaking`` is about clients only."""
    decision = decided(evaluation(40), live=champion(), allow_breaking=True)
    rejected = {each.check for each in decision.checks if each.verdict is Verdict.REJECTED}
    assert {"accuracy", "non-inferiority"} <= rejected


def test_rows_that_the_champion_has_seen_are_left_out_of_the_comparison() -> None:
    """It has learned the first forty by heart; on the others the candidate is better."""
    seen = np.arange(ROWS) < 40
    live = champion(40, first=60, seen=seen, notes=("it was trained on 40 of the 100 held-out rows",))
    decision = decided(evaluation(40), live=live, thresholds=Thresholds(min_accuracy=0.5, margin=0.1))
    assert decision.verdict is Verdict.PASSED
    assert decision.comparison is not None
    assert (decision.comparison.rows, decision.comparison.won, decision.comparison.lost) == (60, 40, 0)
    assert check(decision, "champion").why == "it was trained on 40 of the 100 held-out rows"
    assert check(decision, "champion").measured == "version 3, accuracy 0.3333"


def test_a_champion_that_has_seen_all_rows_leaves_it_open() -> None:
    """The next step is data with rows that are new to it, or letting the floors decide."""
    decision = decided(live=champion(seen=np.ones(ROWS, bool), notes=("it was trained on all",)))
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert "train on data with rows that version 3 has not seen, or add --allow-breaking" in decision.reason
    assert decided(live=champion(seen=np.ones(ROWS, bool)), allow_breaking=True).verdict is Verdict.PASSED


def test_without_a_margin_of_its_own_a_recipe_gets_the_smallest_that_decides() -> None:
    """The line of the report has the margin and its reason."""
    thresholds = replace(THRESHOLDS, margin=None, min_accuracy=0.5)
    found = check(decided(evaluation(5), live=champion(5, first=50), thresholds=thresholds), "non-inferiority")
    assert (found.verdict, found.required) == (Verdict.PASSED, "from > -0.0830")
    assert found.why.endswith("margin 0.083, the smallest that 100 rows decide with a power of 0.8")
    assert check(decided(evaluation(60), live=champion(), thresholds=thresholds), "non-inferiority").verdict is (
        Verdict.REJECTED
    )


RANDOM = np.random.default_rng(0)
LABELS = MultiLabel(("wet", "cold"))
HAS_LABELS = RANDOM.random((200, 2)) > 0.5
VALUES = RANDOM.normal(size=(200, 1))
OWN = OwnTask(lambda targets, answers: -1000 * np.abs(targets - answers)[:, 0])


def off(by: float, seed: int) -> NDArray[np.float64]:
    """Answers to `VALUES` that miss them by so much."""
    return VALUES + by * np.random.default_rng(seed).normal(size=VALUES.shape)


def labels(wrong: float, seed: int) -> NDArray[np.float64]:
    """Certain answers to `HAS_LABELS` of which this share is wrong."""
    return (HAS_LABELS ^ (np.random.default_rng(seed).random(HAS_LABELS.shape) < wrong)).astype(float)


@pytest.mark.parametrize(
    ("task", "targets", "good", "another", "bad"),
    [
        (LABELS, HAS_LABELS, labels(0.1, 1), labels(0.1, 2), labels(0.5, 3)),
        (Regression(), VALUES, off(0.2, 1), off(0.15, 2), off(2, 3)),
        (OWN, VALUES, off(0.2, 1), off(0.15, 2), off(2, 3)),
    ],
    ids=["labels", "regression", "own"],
)
def test_models_of_every_task_are_compared(task: Task, targets: Any, good: Any, another: Any, bad: Any) -> None:
    """One that is as good passes by the default margin, one that is much worse is rejected, in any unit."""
    live = champion(evaluation=task.evaluate(targets, good))
    verdicts = {}
    for name, answers in (("good", good), ("another", another), ("bad", bad)):
        decision = decided(task.evaluate(targets, answers), live=live, thresholds=Thresholds())
        verdicts[name] = check(decision, "non-inferiority").verdict
    assert verdicts == {"good": Verdict.PASSED, "another": Verdict.PASSED, "bad": Verdict.REJECTED}
    assert check(decision, "champion").measured.startswith(f"version 3, {task.score_name} ")


def test_golden_rows_of_values_may_move_by_what_is_usual() -> None:
    """Values in another unit are another answer to every client."""
    candidate = Regression().evaluate(VALUES, off(0.2, 1))
    for factor, verdict in ((1.1, Verdict.PASSED), (1000.0, Verdict.REJECTED)):
        golden = GoldenAnswers(VALUES[:5], VALUES[:5] * factor)
        live = champion(evaluation=candidate, golden=golden)
        decision = decided(candidate, live=live, thresholds=Thresholds())
        assert check(decision, "golden rows").verdict is verdict


def test_answers_that_are_no_numbers_are_rejected_for_every_task() -> None:
    """One NaN is enough, and nothing is compared."""
    broken = off(0.2, 1)
    broken[7] = np.nan
    for task in (Regression(), OWN):
        live = champion(evaluation=task.evaluate(VALUES, off(0.2, 1)))
        decision = decided(task.evaluate(VALUES, broken), live=live, thresholds=Thresholds())
        assert check(decision, "answers").verdict is Verdict.REJECTED
        assert "1 of 200 rows are answered by NaN" in decision.reason
        assert decision.comparison is None


def test_the_report_is_one_table_in_every_form() -> None:
    """Markdown, JSON and rows say the same; JSON has the numbers and the thresholds besides."""
    decision = decided(evaluation(2), slices=(Slice("class", "no | yes", 50, 0.9),), live=champion())
    report = json.loads(decision.json)
    assert report["verdict"] == "passed"
    assert report["checks"] == decision.table
    assert report["comparison"]["lost"] == 2
    assert report["comparison"]["difference"] == pytest.approx(-0.02)
    assert report["thresholds"]["margin"] == 0.1
    assert report["slices"][0]["rows"] == 50
    lines = decision.markdown.splitlines()
    assert lines[0] == "# Gate: passed"
    assert len(lines) == 4 + len(decision.checks)
    assert all(line.replace("\\|", "").count("|") == 6 for line in lines[2:])


def test_the_report_is_kept_whatever_features_are_called(offline: Pipeline) -> None:
    """MLflow refuses some characters in tags; every check has one all the same, beside the two files."""
    import mlflow

    decision = decided(slices=(Slice("length (cm) | größe", "<= 1", 50, 0.9),), live=champion())
    offline.run.log_decision(decision)
    run = mlflow.MlflowClient().get_run(offline.run.id)
    tags = [name for name in run.data.tags if name.startswith("hotswap.gate.")]
    assert len(tags) == len(decision.checks)
    assert run.data.tags["hotswap.gate.accuracy"] == "passed: 1.0000, required >= 0.9000"
    assert run.data.metrics["accuracy_difference"] == 0
    assert json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/gate.json"))["verdict"] == "passed"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/gate.md") == decision.markdown
