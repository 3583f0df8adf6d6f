"""Reference profiles and alarm calibrations of registered versions, beside their other files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from deployment.registry import Registry, Version
from tamis.errors import ModelError
from tamis.models.classifier import load_classifier
from tamis.monitoring.calibration import Calibration
from tamis.monitoring.profile import (
    ReferenceProfile,
    fingerprint,
    load_profile,
    profile_of_classifier,
)

PROFILE = "reference_profile"
CALIBRATION = "alarm_calibration"
CALIBRATION_FILE = "calibration.json"


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


def keep_calibration(registry: Registry, version: Version, calibration: Calibration) -> None:
    """Keep an alarm's calibration with the version that it belongs to; the newest counts."""
    content = calibration.model_dump_json(indent=1)
    with TemporaryDirectory() as name:
        (Path(name) / CALIBRATION_FILE).write_text(content, "utf-8")
        (Path(name) / "calibration.html").write_text(calibration.to_html(), "utf-8")
        found = hashlib.sha256(content.encode()).hexdigest()
        registry.attach(version, Path(name), CALIBRATION, found, {})


def calibration_of(registry: Registry, version: Version, home: Path) -> Calibration | None:
    """The calibration of a version's alarm; None where there was none.

    Raises:
        ModelError: It is damaged.
    """
    folder = registry.download_attached(version, CALIBRATION, home / "models")
    if folder is None:
        return None
    try:
        return Calibration.model_validate_json((folder / CALIBRATION_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        raise ModelError(f"{folder}: no calibration of an alarm; calibrate again") from None
