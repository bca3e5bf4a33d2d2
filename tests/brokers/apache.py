"""Apache Kafka itself: one process that is broker and controller, on ports and data it keeps when started again."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.brokers import certificates
from tests.brokers.jars import kafka_jars
from tests.brokers.process import Process, free_ports
from tests.brokers.security import MECHANISMS, PASSWORD, SCRAM, USER, Access
from tests.brokers.segments import spoil
from tests.e2e.binaries import binary

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

_START_S = 60
_CLUSTER = "dGVzdHMtb2YtbW9kZWxzLQ"  # 16 bytes in base64
# The second compiler would take longer than it saves, and the processors that the tests need.
_JAVA = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "message.max.bytes": "10485760",
    # One broker has no replicas to offer.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Their default of 50 partitions each makes the first group wait.
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    # So that groups form and lose members as quickly as a test wants.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    # A broker that was killed is taken for alive, and cannot come back, until its session ends.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Threads and memory for production.
    "num.network.threads": "1",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "4194304",
}
_LOGIN = {
    "PLAIN": f'plain.PlainLoginModule required user_{USER}="{PASSWORD}"',
    "SCRAM-SHA-256": "scram.ScramLoginModule required",
    "SCRAM-SHA-512": "scram.ScramLoginModule required",
    "OAUTHBEARER": 'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"',
}


class Apache:
    """The broker. `bootstrap` is the listener without security; `access` tells of the others.

    `settings` are server properties that come before the ones above.
    """

    def __init__(
        self, folder: Path, protocols: Sequence[str] = ("PLAINTEXT",), settings: Mapping[str, str] | None = None
    ) -> None:
        java, jars = binary("java"), kafka_jars()
        folder.mkdir(parents=True, exist_ok=True)
        self._data = folder / "data"
        self._properties = folder / "server.properties"
        self._command = [java, *_JAVA, "-cp", f"{jars}/*"]
        self._process = Process(
            [*self._command, "kafka.Kafka", str(self._properties)], folder / "kafka.log", os.environ
        )
        protocols = list(dict.fromkeys(["PLAINTEXT", *protocols]))
        *ports, controller = free_ports(len(protocols) + 1)
        self._addresses = {name: f"127.0.0.1:{port}" for name, port in zip(protocols, ports, strict=True)}
        secured = any(protocol.endswith("SSL") for protocol in protocols)
        self._certificates = certificates.make(folder) if secured else None
        values = {**_SETTINGS, **self._listening(f"127.0.0.1:{controller}"), **(settings or {})}
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in values.items()))

    @property
    def bootstrap(self) -> str:
        return self._addresses["PLAINTEXT"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def access(self, protocol: str = "PLAINTEXT", mechanism: str | None = None) -> Access:
        """How to reach a listener; those with SASL want a mechanism."""
        assert (mechanism is not None) == protocol.startswith("SASL"), (protocol, mechanism)
        ca = self._certificates.ca if self._certificates and protocol.endswith("SSL") else None
        return Access(self._addresses[protocol], protocol, mechanism, ca)

    def start(self) -> None:
        """Start, for the first time or again, and wait until all partitions can be read."""
        if not self._data.exists():
            self._format()
        self._process.start(self.bootstrap, _START_S)

    def stop(self) -> None:
        """SIGTERM: the broker says goodbye and writes what it has."""
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def spoil(self, topic: str, offset: int, partition: int = 0) -> None:
        """Damage the batch with this offset so that its checksum is wrong.

        Between `stop` and `start`: a broker that was killed reads its log again, and cuts off what is damaged.
        """
        spoil(self._data / f"{topic}-{partition}", offset)

    def _format(self) -> None:
        tool = [*self._command, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(self._properties)]
        for mechanism in SCRAM:
            tool += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(tool, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _listening(self, controller: str) -> dict[str, str]:
        listeners = ",".join(f"{name}://{address}" for name, address in self._addresses.items())
        found = {
            "log.dirs": str(self._data),
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in PROTOCOLS)
            + ",CONTROLLER:PLAINTEXT",
        }
        if self._certificates:
            found |= {
                "ssl.keystore.type": "PKCS12",
                "ssl.keystore.location": str(self._certificates.keystore),
                "ssl.keystore.password": self._certificates.password,
            }
        for protocol in self._addresses:
            if protocol.startswith("SASL"):
                found |= _sasl(f"listener.name.{protocol.lower()}")
        return found


@contextmanager
def running(
    folder: Path, protocols: Sequence[str] = ("PLAINTEXT",), settings: Mapping[str, str] | None = None
) -> Iterator[Apache]:
    """A broker, once it answers; all its files in `folder`. At the end it is killed: its data is of no further use."""
    broker = Apache(folder, protocols, settings)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def _sasl(listener: str) -> dict[str, str]:
    package = "org.apache.kafka.common.security"
    logins = {f"{listener}.{name.lower()}.sasl.jaas.config": f"{package}.{_LOGIN[name]};" for name in MECHANISMS}
    return {f"{listener}.sasl.enabled.mechanisms": ",".join(MECHANISMS), **logins}
