import warnings

# MLflow imports it, and a notebook without widgets would show it above the first training.
warnings.filterwarnings("ignore", message="IProgress not found", module="tqdm.auto")
