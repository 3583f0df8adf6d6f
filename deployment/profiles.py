"""Reference profiles and alarm calibrations of registered versions, beside their other files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from deployment.registry import Registry, Version
from tamis.models.classifier import load_classifier
from tamis.monitoring.profile import (
    ReferenceProfile,
    fingerprint,
    load_profile,
    profile_of_classifier,
)

PROFILE = "reference_profile"


def keep_profile(registry: Registry, version: Version, profile: ReferenceProfile) -> None:
    """Keep a profile with a version; the newest counts."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        profile.save(folder)
        registry.attach(version, folder, PROFILE, fingerprint(folder), {})


def profile_of_version(
    registry: Registry, version: Version, home: Path, metric: str
) -> ReferenceProfile:
    """The profile of a version; of one registered without, what its own files tell.

    Args:
        registry: Where it is registered.
        version: The version.
        home: Folder for downloads.
        metric: Metric of record.

    Raises:
        ModelError: The profile is damaged.
    """
    found = registry.download_attached(version, PROFILE, home / "models")
    if found is not None:
        return load_profile(found)
    model = load_classifier(registry.download(version, home / "models"))
    return profile_of_classifier(model, metric)
