"""aebench: train autoencoders on a fixed grid of datasets and seeds, score them, rank them.

The repository's root is this package: ``datasets``, ``models`` and ``benchmark`` are its rooms,
``plugins`` and ``seeds`` what all three need.
"""
