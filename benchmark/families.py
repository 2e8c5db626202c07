"""The families of metrics, in the order of every table. It imports nothing."""

FAMILIES = (
    "reconstruction",
    "likelihood",
    "generation",
    "disentanglement",
    "interpolation",
    "clustering",
    "classification",
)
