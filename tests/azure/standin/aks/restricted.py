"""Pod Security Admission, the level `restricted`, for namespaces that enforce it.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from tests.azure.standin.messages import Json

LABEL = "pod-security.kubernetes.io/enforce"


def violations(spec: Json) -> list[str]:
    """What of a pod is not restricted, in the admission's words."""
    pod = spec.get("securityContext") or {}
    found: list[str] = []
    for container in spec["containers"]:
        own = container.get("securityContext") or {}
        name = f'(container "{container["name"]}" must set securityContext.'
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"allowPrivilegeEscalation != false {name}allowPrivilegeEscalation=false)")
        if "ALL" not in (own.get("capabilities") or {}).get("drop", []):
            found.append(f'unrestricted capabilities {name}capabilities.drop=["ALL"])')
        if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
            found.append("runAsNonRoot != true (pod or container must set runAsNonRoot=true)")
        profile = own.get("seccompProfile") or pod.get("seccompProfile") or {}
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            found.append(
                'seccompProfile (pod or container must set seccompProfile.type to "RuntimeDefault" '
                'or "Localhost")'
            )
    return found
