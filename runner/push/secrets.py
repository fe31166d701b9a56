"""Files that hold secrets, recognised by name and by content. They are left out even where git tracks them."""

from __future__ import annotations

import os
import re

from remote_payload.tokens import find_token

_FOLDERS = frozenset((".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".huggingface"))
# ``id_*`` means ssh's keys: a name with an ending (id_map.json) is somebody's data, and a key inside it is found by its content.
_FILES = re.compile(
    r"\.env.*|.+\.env|id_[^.]+|\.?netrc|_netrc|\.pgpass|\.pypirc|\.npmrc|\.git-credentials|\.htpasswd|\.dockercfg|kubeconfig"
    r"|credentials(\.(json|ya?ml|toml|ini|csv))?|application_default_credentials\.json|client_secret.*\.json|service[_-]account.*\.json"
    r"|secrets\.(json|ya?ml|toml|ini)|\.s3cfg|\.boto|rclone\.conf|wandb[_-]?key.*"
    r"|.+\.(pem|key|p12|pfx|jks|keystore|ppk|kdbx|ovpn|kubeconfig)",
    re.IGNORECASE,
)
MAX_SCANNED_FILE = 5 << 20
SCANNED_BYTES = 1 << 20
_SNIFFED = 8192


def secret_name(name: str, is_folder: bool) -> str | None:
    """Why a file or folder of this name is not sent (``"credentials by name"``), or None."""
    if is_folder:
        return "credentials by name" if name.lower() in _FOLDERS else None
    return "credentials by name" if _FILES.fullmatch(name) else None


def secret_inside(path: str, size: int) -> str | None:
    """Which secret the first 1 MiB of a text file of at most 5 MiB holds, or None. Raises OSError when it cannot be read."""
    if not 16 <= size <= MAX_SCANNED_FILE:
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, _SNIFFED)
        if b"\0" in content:
            return None
        if size > _SNIFFED:
            content += os.read(descriptor, SCANNED_BYTES - len(content))
    finally:
        os.close(descriptor)
    found = find_token(content)
    return f"{found} inside" if found else None
