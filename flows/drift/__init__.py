"""Whether what comes in still looks like the data that a model was trained on."""
