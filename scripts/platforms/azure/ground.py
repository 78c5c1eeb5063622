"""What every deployment on Azure needs to know, each asked for once, when it is first needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pydantic import SecretStr

from scripts.errors import UsageError
from scripts.platforms import starting
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.certificate import Certificate, certificate
from scripts.platforms.azure.images import AzureImages
from scripts.platforms.azure.key import fingerprint, held_key, keep_key, write_key
from scripts.platforms.azure.names import TAG
from scripts.platforms.azure.place import Place, place
from scripts.settings import Settings

#: Settings of where it runs, which a deployment keeps beside the service's own.
SIZES = ("DEPLOY_CPU", "DEPLOY_MEMORY_GB")
TELEMETRY = "APPLICATIONINSIGHTS_CONNECTION_STRING"


class Ground:
    """The place, the registry, the secrets and the settings of one clone's service.

    `tls` says whether HTTPS there is ours to answer, with TLS_CERT_NAME, and not Azure's.
    """

    def __init__(self, root: Path, settings: Settings, az: Az, *, tls: bool = True) -> None:
        self.root = root
        self.tls = tls
        self.settings = settings
        self.az = az
        self.images = AzureImages(root, settings, az)
        #: The key that this verb is given, and the vault's before a deployment changed it.
        self._given = settings.SCORING_KEY
        self._former: SecretStr | None = None

    @cached_property
    def place(self) -> Place:
        return place(self.root, self.settings, self.az)

    @cached_property
    def _held_key(self) -> SecretStr | None:
        return held_key(self.place, self.az)

    @property
    def key(self) -> str:
        """SCORING_KEY, else the key that the vault holds, "" if it has none: asked, never changed."""
        key = self._given or self._held_key
        return key.get_secret_value() if key else ""

    def keep_key(self) -> None:
        """Let the vault hold the key that a deployment is about to be given."""
        held = self._held_key
        self._held_key = keep_key(self.place, self.az, held)
        self._former = None if self._held_key == held else held

    def restore_key(self) -> None:
        """Let the vault hold, and `key` be, what they were before `keep_key`: what serves has that one."""
        former, self._former = self._former, None
        if former is not None:
            write_key(self.place, self.az, former)
            self._given, self._held_key = None, former

    @property
    def headers(self) -> Mapping[str, str]:
        """What a client sends along; UsageError where the key is gone."""
        if not self.key:
            raise UsageError(
                f"the vault {self.place.vault} has lost the service's key",
                "set SCORING_KEY to it, or run `make deploy FORCE=1`, which makes another",
            )
        return {"Authorization": f"Bearer {self.key}"}

    @cached_property
    def telemetry(self) -> str | None:
        """Where traces go: the setting, else the workspace's Application Insights."""
        if self.settings.APPLICATIONINSIGHTS_CONNECTION_STRING:
            return self.settings.APPLICATIONINSIGHTS_CONNECTION_STRING.get_secret_value()
        if not self.place.insights_id.startswith("/"):
            return None
        query = ("--query", "properties.ConnectionString")
        found = self.az.find("resource", "show", "--ids", self.place.insights_id, *query)
        return str(found) if found else None

    @cached_property
    def certificate(self) -> Certificate | None:
        """The certificate that HTTPS is answered with, if one is named."""
        name = self.settings.TLS_CERT_NAME if self.tls else None
        return certificate(self.place, self.az, name) if name else None

    def secrets(self) -> dict[str, str]:
        """The service's secrets, as its environment has them."""
        found = {**starting.secret_environment(self.settings)}
        if (where := self.telemetry) is not None:
            found[TELEMETRY] = where
        return {**found, "SCORING_KEY": self.key}

    def secrets_hash(self, salt: str) -> str:
        """The fingerprint of what may change of the secrets.

        Where traces go follows from the place, so it is left out: it costs a call to ask.
        """
        kept = {**starting.secret_environment(self.settings)}
        kept["SCORING_KEY"] = self.key
        if self.certificate is not None:
            kept["certificate"] = self.certificate.thumbprint
        return fingerprint(salt, sorted(kept.items()))

    def wanted_settings(self, sizes: tuple[str, ...] = SIZES) -> dict[str, str]:
        """The service's settings of now, and how large it is."""
        values = {name: getattr(self.settings, name) for name in sizes}
        more = {n: v if isinstance(v, str) else f"{v:g}" for n, v in values.items()}
        return {**starting.service_settings(self.settings), **more}

    def labels(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags of what is deployed: whose it is, so that `destroy` knows it, and `tags`."""
        return {TAG: self.place.workspace, **tags}

    def tag(self, kind: str, name: str, tags: Mapping[str, str]) -> None:
        """Change these tags of a resource in the group; its other tags stay, and what runs is left alone."""
        group = f"/subscriptions/{self.place.subscription}/resourceGroups/{self.place.group}"
        pairs = [f"{key}={value}" for key, value in tags.items()]
        self.az(
            *("tag", "update", "--resource-id", f"{group}/providers/{kind}/{name}"),
            *("--operation", "Merge", "--tags", *pairs, "--query", "id"),
        )

    def label(self, name: str) -> str:
        """A host label for `name` that no other subscription or group has."""
        where = f"{self.place.subscription}/{self.place.group}".lower()
        return f"{name.lower()[:50]}-{hashlib.sha256(where.encode()).hexdigest()[:8]}"

    def require_tls(self, target: str) -> None:
        """UsageError where neither a certificate is named that is good now, nor plain HTTP allowed."""
        if self.certificate is not None:
            self.certificate.check_dates()
        elif self.tls and (wrong := without_https(self.settings, target)):
            raise wrong


def without_https(settings: Settings, target: str) -> UsageError | None:
    """What is wrong where a target that has no HTTPS of its own is given no certificate either."""
    if settings.TLS_CERT_NAME or settings.ALLOW_HTTP:
        return None
    return UsageError(
        f"TLS_CERT_NAME is not set, and DEPLOY_TARGET={target} has no HTTPS without a certificate",
        "name a certificate of the workspace's Key Vault in TLS_CERT_NAME, or set ALLOW_HTTP=true, "
        "or DEPLOY_TARGET=webapp, which always has HTTPS",
    )


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What of a deployment's settings the service itself reads."""
    return {name: settings[name] for name in starting.SERVICE_SETTINGS if name in settings}
