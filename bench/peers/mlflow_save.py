"""Save a classifier as a pyfunc: ``python bench/peers/mlflow_save.py CLASSIFIER TARGET``."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow

if __name__ == "__main__":
    mlflow.pyfunc.save_model(
        path=sys.argv[2],
        python_model=str(Path(__file__).with_name("mlflow_model.py")),
        artifacts={"classifier": sys.argv[1]},
        pip_requirements=["onnxruntime"],  # what it needs is here; asking would take minutes
    )
