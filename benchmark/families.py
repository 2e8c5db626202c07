"""The families of metrics, in the order of every table; others follow. It imports nothing."""

FAMILIES = (
    "reconstruction",
    "likelihood",
    "generation",
    "disentanglement",
    "interpolation",
    "clustering",
    "classification",
    "anomaly",
    "restoration",
    "retrieval",
    "compression",
)


def place(family: str) -> tuple[int, str]:
    """What families are sorted by."""
    return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), family)
