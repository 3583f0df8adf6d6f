"""Tamis: train a document classifier and sift corpora with it.

The engine. It knows nothing of the orchestrator, the tracker or the cloud
(``tests/test_architecture.py`` holds it to that).
"""

__version__ = "0.1.0"
