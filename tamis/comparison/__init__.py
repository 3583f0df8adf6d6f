"""Model families and text preparations side by side, on the same folds."""
