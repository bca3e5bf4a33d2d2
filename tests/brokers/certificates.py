"""An authority of the test's own, and a certificate of it for this host."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.binaries import binary

_PASSWORD = "secret-of-tests"  # noqa: S105 - of tests indeed
_NEW_KEY = ["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "3650"]


@dataclass(frozen=True)
class Certificates:
    """Files of one authority: the server's keys in Java's format, and the authority itself for clients, in PEM."""

    keystore: Path
    password: str
    ca: Path


def make(folder: Path) -> Certificates:
    """Certificates for localhost and 127.0.0.1, in this folder."""
    authority, server, ca, signed = (folder / name for name in ("ca.p12", "server.p12", "ca.pem", "server.pem"))
    of_ca, of_server = ["-keystore", str(authority), "-alias", "ca"], ["-keystore", str(server), "-alias", "server"]
    _keytool(*_NEW_KEY, *of_ca, "-dname", "CN=tests", "-ext", "bc:c=ca:true", "-ext", "ku:c=keyCertSign")
    _keytool(*_NEW_KEY, *of_server, "-dname", "CN=localhost")
    ca.write_bytes(_keytool("-exportcert", "-rfc", *of_ca))
    names = ["-ext", "san=dns:localhost,ip:127.0.0.1", "-ext", "eku=serverAuth"]
    request = _keytool("-certreq", *of_server)
    chain = ca.read_bytes() + _keytool("-gencert", "-rfc", "-validity", "3650", *of_ca, *names, said=request)
    signed.write_bytes(chain)
    _keytool("-importcert", "-noprompt", *of_server, "-file", str(signed))
    return Certificates(server, _PASSWORD, ca)


def _keytool(*arguments: str, said: bytes = b"") -> bytes:
    quick = ["-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC"]
    command = [binary("keytool"), *quick, *arguments, "-storetype", "PKCS12", "-storepass", _PASSWORD]
    done = subprocess.run(command, input=said, capture_output=True, check=False)
    assert done.returncode == 0, done
    return done.stdout
