"""What workers are forked with: a fork server imports this, and nothing else may.

Afterwards the server is a single thread without a CUDA context, so that its forks are sound.
"""

import gc
import os
import sys
from importlib import import_module

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # it starts its threads when it is imported
sys.path = [place for place in sys.path if place]  # no library is looked for in the current folder
try:
    from ..datasets import Dataset
    from ..models import Autoencoder, Backbone, Sampler
    from .cell import Extractor, Metric

    for kind in (Autoencoder, Backbone, Dataset, Extractor, Metric, Sampler):
        kind.choices()
    for name in ("cluster", "linear_model", "mixture", "neighbors"):
        import_module(f"sklearn.{name}")
except Exception:
    pass  # a worker meets the error again, and says so
gc.freeze()  # a collection in a worker would copy pages that are shared
