from pathlib import Path
from typing import Any

import pytest

from exporter.app.config import ConfigError
from exporter.app.schema import Config, KafkaConfig
from exporter.app.setup import build_runtime, kafka_connection
from exporter.ingest.kafka_client import Tls


def a_kafka(**settings: Any) -> KafkaConfig:
    import msgspec

    return msgspec.convert({"type": "kafka", "bootstrap_servers": ["k:9092"], "topics": ["t"]} | settings, KafkaConfig)


def sources_of(tmp_path: Path, *kafkas: KafkaConfig) -> list[tuple[str, str, bool]]:
    """Name and guarantee of every source, and whether labels are to be expected of it."""
    runtime, _ = build_runtime(Config(sources=list(kafkas)), tmp_path)
    return [(feed.source.name, feed.source.health().guarantee, feed.labels) for feed in runtime.feeds]


class TestKafkaSources:
    def test_are_two_where_each_member_reads_all_labels_but_only_some_predictions(self, tmp_path: Path):
        of_a_group = a_kafka(label_topics=["l"])
        assert sources_of(tmp_path, of_a_group) == [
            ("kafka", "at_least_once", False),
            ("kafka-labels", "exactly_once", True),
        ]
        one_of_two = a_kafka(label_topics=["l"], partitions={"member": 1, "of": 2})
        assert sources_of(tmp_path, one_of_two) == [
            ("kafka", "exactly_once", False),
            ("kafka-labels", "exactly_once", True),
        ]

    @pytest.mark.parametrize(
        "settings, labels",
        [
            ({}, False),
            ({"label_topics": ["l"], "label_join": "copartitioned"}, True),
            ({"label_topics": ["l"], "label_join": "copartitioned", "partitions": {"member": 1, "of": 2}}, True),
            ({"label_topics": ["l"], "partitions": {"member": 0, "of": 1}}, True),
        ],
        ids=["no labels", "group", "static", "alone"],
    )
    def test_are_one_where_predictions_and_labels_are_shared_out_alike(
        self, tmp_path: Path, settings: dict[str, Any], labels: bool
    ):
        ((name, _, expects_labels),) = sources_of(tmp_path, a_kafka(**settings))
        assert (name, expects_labels) == ("kafka", labels)

    def test_of_labels_alone_are_read_whole_by_each_member_too(self, tmp_path: Path):
        found = sources_of(tmp_path, a_kafka(), a_kafka(topics=[], label_topics=["l"]))
        assert found == [("kafka", "at_least_once", False), ("kafka-2", "exactly_once", True)]

    def test_are_numbered_and_their_labels_with_them(self, tmp_path: Path):
        found = sources_of(tmp_path, a_kafka(label_topics=["l"]), a_kafka(), a_kafka(label_topics=["l"]))
        assert [name for name, _, _ in found] == ["kafka", "kafka-labels", "kafka-2", "kafka-3", "kafka-3-labels"]


class TestKafkaConnections:
    def test_are_of_a_group_unless_partitions_are_static(self, tmp_path: Path):
        share = {"member": 0, "of": 2}
        groups = [
            kafka_connection(source, tmp_path).group_id
            for source in (a_kafka(), a_kafka(group_id="g"), a_kafka(partitions=share, group_id="g"))
        ]
        assert groups == ["model-health", "g", "g"]
        assert kafka_connection(a_kafka(partitions=share), tmp_path).group_id is None

    def test_say_who_they_are_and_where_to_begin(self, tmp_path: Path):
        found = kafka_connection(a_kafka(auto_offset_reset="latest", session_timeout="10s"), tmp_path, "kafka-2")
        assert (found.bootstrap_servers, found.client_id) == (("k:9092",), "model-health-exporter-kafka-2")
        assert (found.earliest, found.session_timeout_s) == (False, 10.0)
        assert (found.tls, found.sasl) == (None, None)
        assert kafka_connection(a_kafka(), tmp_path).earliest

    def test_trust_files_beside_the_configuration(self, tmp_path: Path):
        for name in ("ca.pem", "own.pem", "own.key"):
            (tmp_path / name).write_text("PEM")
        (tmp_path / "pass").write_text("s3cret\n")
        tls = {"ca_file": "ca.pem", "cert_file": "own.pem", "key_file": f"{tmp_path}/own.key"}
        found = kafka_connection(a_kafka(tls=tls | {"key_password_file": "pass", "check_hostname": False}), tmp_path)
        assert found.tls == Tls(
            ca_file=f"{tmp_path}/ca.pem",
            cert_file=f"{tmp_path}/own.pem",
            key_file=f"{tmp_path}/own.key",
            key_password="s3cret",
            check_hostname=False,
        )
        assert "s3cret" not in str(found)
        assert kafka_connection(a_kafka(tls={}), tmp_path).tls == Tls()

    def test_take_the_password_from_a_file_or_the_configuration(self, tmp_path: Path):
        (tmp_path / "pass").write_text("s3cret\n")
        sasl = {"mechanism": "PLAIN", "username": "u"}
        for told in ({"password_file": "pass"}, {"password": "s3cret"}):
            found = kafka_connection(a_kafka(sasl=sasl | told), tmp_path).sasl
            assert found is not None
            assert (found.mechanism, found.username, found.password, found.token) == ("PLAIN", "u", "s3cret", None)
            assert "s3cret" not in str(found), "nor in a log"

    def test_read_a_token_anew_whenever_it_is_asked_for(self, tmp_path: Path):
        (tmp_path / "token").write_text("one\n")
        found = kafka_connection(a_kafka(sasl={"mechanism": "OAUTHBEARER", "token_file": "token"}), tmp_path).sasl
        assert found is not None
        assert found.token is not None
        assert found.token() == "one"
        (tmp_path / "token").write_text("two")
        assert found.token() == "two"

    @pytest.mark.parametrize(
        "settings, key",
        [
            ({"tls": {"ca_file": "none"}}, "tls.ca_file"),
            ({"tls": {"key_password_file": "none"}}, "tls.key_password_file"),
            ({"sasl": {"mechanism": "PLAIN", "username": "u", "password_file": "none"}}, "sasl.password_file"),
            ({"sasl": {"mechanism": "OAUTHBEARER", "token_file": "none"}}, "sasl.token_file"),
        ],
    )
    def test_refuse_a_file_without_a_secret_by_its_key(self, tmp_path: Path, settings: dict[str, Any], key: str):
        with pytest.raises(ConfigError, match=f"^{key}: cannot read {tmp_path}/none: No such file or directory$"):
            kafka_connection(a_kafka(**settings), tmp_path)
        (tmp_path / "none").write_text("\n")
        with pytest.raises(ConfigError, match=f"^{key}: {tmp_path}/none is empty$"):
            kafka_connection(a_kafka(**settings), tmp_path)
