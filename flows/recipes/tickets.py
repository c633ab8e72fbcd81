"""Which desk a customer's message is for: short texts, put together from phrases, in three classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.recipes import Recipe, Thresholds

if TYPE_CHECKING:
    import keras

_ROWS = 900
_BEGINNINGS = ("hello,", "hi there,", "good morning,", "dear team,", "please help:", "once again,", "")
_MATTERS = {
    "billing": (
        *("i was charged twice", "the invoice is wrong", "my refund has not come", "the discount is missing"),
        *("my card was declined", "i cannot see what i pay for"),
    ),
    "delivery": (
        *("my parcel has not arrived", "the courier left it in the rain", "the box was damaged", "i need it by friday"),
        *("it went to the wrong street", "i cannot track it"),
    ),
    "account": (
        *("i forgot my password", "the login page does not load", "please change my email", "i want to delete my data"),
        *("the code never comes", "somebody else uses my name"),
    ),
}
_ENDINGS = (
    *(
        "for order {}",
        "since monday",
        "and nobody answers",
        "what shall i do",
        "it is urgent",
        "thank you",
        "customer {}",
    ),
    "i wrote on day {}",
)


def load() -> tuple[NDArray[Any], NDArray[Any]]:
    """900 texts [900] and the desk of each [900]; one in thirty went to the wrong desk."""
    random = np.random.default_rng(11)
    desks = random.integers(0, len(_MATTERS), _ROWS)
    phrases = list(_MATTERS.values())
    texts = [
        " ".join(
            [
                str(random.choice(_BEGINNINGS)),
                str(random.choice(phrases[desk])),
                *(str(each).format(random.integers(1, 1000)) for each in random.choice(_ENDINGS, 2, replace=False)),
            ]
        ).strip()
        for desk in desks
    ]
    is_wrong = random.random(_ROWS) < 1 / 30
    return np.array(texts, object), np.where(is_wrong, random.integers(0, len(_MATTERS), _ROWS), desks)


def build(examples: NDArray[Any]) -> keras.Model:
    """The mean of the words' vectors, behind a vocabulary of the training texts."""
    import keras

    words = keras.layers.TextVectorization(max_tokens=500, output_sequence_length=24)
    words.adapt(examples)
    return keras.Sequential(
        [
            keras.Input((), dtype="string"),
            words,
            keras.layers.Embedding(500, 16),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


RECIPE = Recipe(
    name="tickets",
    load=load,
    build=build,
    class_names=tuple(_MATTERS),
    epochs=12,
    batch_size=32,
    learning_rate=0.03,
    thresholds=Thresholds(min_accuracy=0.88, max_log_loss=0.5, margin=0.05),
)
