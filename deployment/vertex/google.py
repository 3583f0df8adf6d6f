"""Google's clients, set up for a stack."""

from __future__ import annotations

import logging
from typing import Any

from deployment.vertex.settings import VertexStack
from tamis.errors import StackError

HOW_TO_LOG_IN = "`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"


def credentials() -> Any:
    """The credentials that Google's libraries find on this machine.

    Raises:
        StackError: They find none.
    """
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        found, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except DefaultCredentialsError:
        raise StackError(f"Google Cloud: no credentials on this machine; {HOW_TO_LOG_IN}") from None
    return found


def begin(stack: VertexStack) -> Any:
    """``google.cloud.aiplatform``, for the stack's project and region.

    An ``api_endpoint`` of the stack's own is spoken to by REST, as the one protocol that every
    proxy passes on.

    Raises:
        StackError: There are no credentials.
    """
    from google.cloud import aiplatform

    # It logs what it raises, and tracebacks of what it gets over.
    logging.getLogger("google.cloud.aiplatform").setLevel(logging.CRITICAL)
    aiplatform.init(
        project=stack.project,
        location=stack.region,
        credentials=credentials(),
        staging_bucket=stack.bucket,
        api_endpoint=stack.api_endpoint,
        api_transport="rest" if stack.api_endpoint else None,
    )
    return aiplatform
