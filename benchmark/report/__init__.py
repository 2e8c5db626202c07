"""What a run shows: tables, pictures, Weights & Biases."""
