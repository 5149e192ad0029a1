"""The same pipeline with several seeds and folds, as experiments of DVC."""
