"""Using a trained model: what a target is, how it is loaded, and its predictions for files of any size."""
