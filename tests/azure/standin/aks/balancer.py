"""Services of type LoadBalancer: a public address, and connections shared out among ready pods.

As Azure's balancer does, one connection stays with one pod; nothing looks into it. Source:
learn.microsoft.com/azure/aks/load-balancer-standard, "Customizations via Kubernetes annotations".
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
from contextlib import suppress

from tests.azure.standin.aks.cluster import Cluster, Key
from tests.azure.standin.messages import Json

LABEL = "service.beta.kubernetes.io/azure-dns-label-name"
CHUNK = 1 << 16
_numbers = itertools.count(10)


class Balancer:
    """One service's address; every port of it is a listener of this machine."""

    def __init__(self, cluster: Cluster, key: Key) -> None:
        self.cluster, self.key = cluster, key
        self.ip = f"20.86.1.{next(_numbers)}"
        self.host = ""
        self.selector: dict[str, str] = {}
        self.listeners: dict[int, tuple[socket.socket, int | str]] = {}
        self.turn = itertools.count()

    def update(self, service: Json) -> None:
        """Take up what the service says now."""
        world = self.cluster.world
        self.selector = dict(service["spec"].get("selector") or {})
        wanted = {
            int(p["port"]): p.get("targetPort", p["port"])
            for p in service["spec"].get("ports") or []
        }
        for port in [p for p in self.listeners if p not in wanted]:
            self.listeners.pop(port)[0].close()
        for port, target in wanted.items():
            if port in self.listeners:
                self.listeners[port] = (self.listeners[port][0], target)
            else:
                self._listen(port, target)
        label = (service["metadata"].get("annotations") or {}).get(LABEL, "")
        host = self._host(service, label)
        open_ports = {port: each.getsockname() for port, (each, _) in self.listeners.items()}
        if self.host and self.host != host:
            world.machines.pop(self.host, None)
        self.host = host
        for name in (self.ip, host):
            if name:
                world.machines[name] = open_ports
        service["status"] = {"loadBalancer": {"ingress": [{"ip": self.ip}]}}

    def _host(self, service: Json, label: str) -> str:
        """The host of a label that is free; an event says what is wrong with another."""
        if not label:
            return ""
        host = f"{label}.{self.cluster.region}.cloudapp.azure.com"
        if not re.fullmatch(r"[a-z][a-z0-9-]{1,61}[a-z0-9]", label):
            code, what = "InvalidDomainNameLabel", f"The domain name label {label} is invalid."
        elif host != self.host and host in self.cluster.world.machines:
            code = "DnsRecordInUse"
            what = f"DNS record {host} is already used by another public IP."
        else:
            return host
        message = f"Error syncing load balancer: failed to ensure load balancer: {code}: {what}"
        self.cluster.event(service, "SyncLoadBalancerFailed", message)
        return ""

    def _listen(self, port: int, target: int | str) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listeners[port] = (listener, target)
        threading.Thread(target=self._accept, args=(port, listener), daemon=True).start()

    def _accept(self, port: int, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(port, client), daemon=True).start()

    def _addresses(self, port: int) -> list[tuple[str, int]]:
        target = self.listeners[port][1]
        with self.cluster.lock:
            pods = [
                pod
                for key, pod in self.cluster.pods.items()
                if key[1] == self.key[1]
                and pod.ready
                and self.selector
                and self.selector.items() <= pod.made["metadata"]["labels"].items()
            ]
            return [place for pod in pods if (place := pod.address(target)) is not None]

    def _join(self, port: int, client: socket.socket) -> None:
        """One connection, with a pod that is ready now; refused if there is none."""
        with client, suppress(OSError, KeyError):
            places = self._addresses(port)
            if not places:
                return
            place = places[next(self.turn) % len(places)]
            with socket.create_connection(place, timeout=10) as pod:
                pod.settimeout(None)
                for each in (pod, client):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_pump, args=(pod, client), daemon=True)
                back.start()
                _pump(client, pod)
                back.join()

    def close(self) -> None:
        """Give the address back."""
        for listener, _ in self.listeners.values():
            listener.close()
        for name in (self.ip, self.host):
            self.cluster.world.machines.pop(name, None)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(CHUNK):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
