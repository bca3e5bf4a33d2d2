"""How clients of a test prove who they are, and how they know the broker."""

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = ("PLAIN", *SCRAM, "OAUTHBEARER")

USER = "exporter"
PASSWORD = "secret-of-tests"  # noqa: S105 - of tests indeed

_TOKEN_LASTS_S = 3600


@dataclass(frozen=True)
class Access:
    """One way into a broker: an address, and what a client must say and trust there."""

    bootstrap: str
    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    ca: Path | None = None

    def kafka_python(self) -> dict[str, Any]:
        """Arguments of a kafka-python client."""
        found: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": self.protocol}
        if self.ca:
            found |= {"ssl_cafile": str(self.ca)}
        if self.mechanism:
            found |= {"sasl_mechanism": self.mechanism}
            if self.mechanism == "OAUTHBEARER":
                found |= {"sasl_oauth_token_provider": _tokens()}
            else:
                found |= {"sasl_plain_username": USER, "sasl_plain_password": PASSWORD}
        return found

    def confluent(self) -> dict[str, Any]:
        """Configuration of a confluent-kafka client."""
        found: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol}
        if self.ca:
            found |= {"ssl.ca.location": str(self.ca)}
        if self.mechanism:
            found |= {"sasl.mechanism": self.mechanism}
            if self.mechanism == "OAUTHBEARER":
                found |= {"oauth_cb": lambda _: (token(), time.time() + _TOKEN_LASTS_S)}
            else:
                found |= {"sasl.username": USER, "sasl.password": PASSWORD}
        return found


def token(user: str = USER, lasts_s: float = _TOKEN_LASTS_S) -> str:
    """An unsigned JSON web token, which Kafka accepts where nothing else is configured.

    It was issued a second ago: Kafka refuses one of a time to come, and rounds to milliseconds.
    """
    now = time.time()
    parts = ({"alg": "none"}, {"sub": user, "iat": now - 1, "exp": now + lasts_s})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])


def _tokens() -> Any:
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class Tokens(AbstractTokenProvider):
        def token(self) -> str:
            return token()

    return Tokens()
