"""Apache Kafka, fetched by Maven once and kept at the repository root."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.e2e.binaries import binary, missing

VERSION = "4.1.0"

_CACHE = Path(__file__).parents[2] / ".cache"
_DEADLINE_S = 300
# slf4j-simple, because Kafka brings no binding for its log, and this one needs no configuration file.
_POM = f"""
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


def kafka_jars() -> Path:
    """Folder of the jars. A folder of that name is complete: it is filled under another one."""
    folder = _CACHE / f"kafka-{VERSION}"
    if not folder.is_dir():
        maven = binary("mvn")
        _CACHE.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=_CACHE) as workplace:
            fetched = _fetch(maven, Path(workplace))
            try:
                fetched.rename(folder)
            except OSError:  # another run was quicker
                if not folder.is_dir():
                    raise
    return folder


def _fetch(maven: str, folder: Path) -> Path:
    pom, jars = folder / "pom.xml", folder / "jars"
    pom.write_text(_POM)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    command = [maven, "--quiet", "--batch-mode", f"--file={pom}", *goal]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_DEADLINE_S)
    if done.returncode:
        missing(f"Maven cannot fetch Apache Kafka {VERSION}: {done.stdout[-1000:]}")
    return jars
