"""Why a model scores as it does: words of one text, and what moves the scores of many."""
