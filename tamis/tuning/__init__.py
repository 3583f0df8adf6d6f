"""Search for hyper-parameters by Optuna, on folds that hold no test document."""
