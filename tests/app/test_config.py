from pathlib import Path
from typing import Any

import pytest

from exporter.app import config
from exporter.app.config import ConfigError, Listen, fields_of, model_settings, parse
from exporter.app.schema import Config, FileConfig, HttpConfig, KafkaConfig, SaslConfig, TlsConfig
from exporter.app.setup import access
from exporter.catalog.thresholds import ALERT_THRESHOLDS
from exporter.monitor.settings import Budget, JoinSettings, Segmentation

ENVIRONMENT = {"MODEL_VERSION": "7", "FOLDER": "/data", "POD_NAME": "exporter-1", "KAFKA_PASSWORD": "s3cret"}

EVERYTHING = """
listen: 127.0.0.1:0
tick: 500ms
insecure: true
series_limit: 5000
auth: {write_token_file: write, read_token_file: read}
models:
  - name: car_loan
    version: ${MODEL_VERSION}
    references: ["${FOLDER}/reference-*.json"]
    window: 30m
    min_samples: 200
    thresholds:
      {psi: 0.2, multivariate: 0.3, alpha: 0.01, drifted_features_ratio: 0.5,
       features: {car_value: {psi: 0.3}}, quality: {accuracy: 0.01},
       faulty_ratio: 0.3, faulty_features: 1, canary_predictions: 50, canary_z: 2.5, canary_margin: 0,
       traffic_ratio: 0.2, traffic_predictions: 20}
    labels: {maturity: 24h, max_pending: 1000, sample: 0.5, min_samples: 50}
    segments: [region, {name: tier, top: 3}]
    latency_objective: {p99: 250ms, p99.9: 1s}
    error_budget: 0.01
    error_reasons: [quota]
    trained: 2026-11-01T00:00:00+01:00
    max_age: 30d
    info: {team: risk, project: lending}
  - {name: young, learn: 20000, categorical: [zip], budget: {pages: 0.5, per: 7d}}
sources:
  - {type: http, time: event, max_body_bytes: 1000, model: car_loan, log_values: true, fields: {id: request.id}}
  - {type: file, path: events.jsonl, follow: true, fields: {features: "*"}, exclude: [debug]}
  - {type: file, path: rows.csv, model: young}
"""

KAFKA = """
state: {path: /var/lib/exporter}
sources:
  - type: kafka
    bootstrap_servers: ["one:9093", "two:9093"]
    topics: [predictions]
    label_topics: [labels]
    group_id: watchers
    session_timeout: 10s
    partitions: {member: "${POD_NAME}", of: 3}
    client: confluent
    auto_offset_reset: latest
    tls: {ca_file: ca.pem, cert_file: own.pem, key_file: own.key, key_password_file: pass, check_hostname: false}
    sasl: {mechanism: SCRAM-SHA-512, username: exporter, password: "${KAFKA_PASSWORD}"}
    headers: {model: x-model, content_type: x-type}
    fields: {id: request.id}
"""


def load(text: str, **environment: str) -> Config:
    return parse(text, "c.yaml", environment)


def a_model(**settings: Any) -> str:
    import json

    return json.dumps({"models": [{"name": "m", **settings}]})


def a_source(**settings: Any) -> str:
    import json

    return json.dumps({"models": [{"name": "m"}], "sources": [settings]})


def a_kafka(models: str = '[{"name": "m"}]', **settings: Any) -> str:
    import json

    source = {"type": "kafka", "bootstrap_servers": ["k:9092"], "topics": ["t"]} | settings
    return f'{{"models": {models}, "sources": [{json.dumps(source)}]}}'


def test_an_empty_file_is_an_exporter_that_takes_posts():
    for text in ("", "# nothing\n", "{}"):
        loaded = load(text)
        assert (loaded.listen, loaded.tick, loaded.models) == ("0.0.0.0:9878", "5s", [])
        assert [type(source) for source in loaded.sources] == [HttpConfig]


def test_everything_that_can_be_set():
    loaded = parse(EVERYTHING, "c.yaml", ENVIRONMENT)
    car_loan, young = map(model_settings, loaded.models)
    assert (car_loan.name, car_loan.version) == ("car_loan", "7")
    assert loaded.models[0].references == ["/data/reference-*.json"]
    assert (car_loan.window.seconds, car_loan.window.label) == (1800, "30m")
    assert (car_loan.min_samples, car_loan.psi_threshold, car_loan.alpha) == (200, 0.2, 0.01)
    assert car_loan.drifted_features_ratio == 0.5
    assert car_loan.join == JoinSettings(86400.0, 1000, 0.5)
    assert (car_loan.min_labels, car_loan.quality_tolerances) == (50, {"accuracy": 0.01})
    assert car_loan.multivariate_threshold == 0.3
    assert car_loan.feature_psi_thresholds == {"car_value": 0.3}
    assert car_loan.latency_objective_s == {"0.99": 0.25, "0.999": 1.0}
    assert (car_loan.error_budget, young.error_budget) == (0.01, 0.001)
    assert car_loan.alert_thresholds == {
        "faulty_ratio": 0.3,
        "faulty_features": 1,
        "canary_predictions": 50,
        "canary_z": 2.5,
        "canary_margin": 0,
        "traffic_ratio": 0.2,
        "traffic_predictions": 20,
    }
    assert young.alert_thresholds == {one.name: one.value for one in ALERT_THRESHOLDS}
    assert "quota" in car_loan.error_reasons.names
    assert car_loan.trained == 1793487600.0
    assert car_loan.max_age_s == 30 * 86400
    assert car_loan.segments == (Segmentation("region", 10), Segmentation("tier", 3))
    assert young.segments == ()
    assert car_loan.info == {"team": "risk", "project": "lending"}
    assert car_loan.budget == Budget()
    assert (young.alpha, young.budget) == (None, Budget(pages=0.5, per_s=7 * 86400))
    assert (young.learn, young.learn_categorical) == (20000, {"zip"})
    http, events, rows = loaded.sources
    assert isinstance(http, HttpConfig)
    assert (http.time, http.max_body_bytes, http.model, http.log_values) == ("event", 1000, "car_loan", True)
    assert fields_of(http).id == ("request", "id")
    assert fields_of(events).flat
    assert fields_of(events).exclude == {"debug"}
    assert isinstance(rows, FileConfig)
    assert not rows.follow


def test_everything_that_can_be_set_about_kafka():
    loaded = parse(KAFKA, "c.yaml", ENVIRONMENT)
    (source,) = loaded.sources
    assert loaded.state is not None
    assert loaded.state.path == "/var/lib/exporter"
    assert isinstance(source, KafkaConfig)
    assert (source.bootstrap_servers, source.topics, source.label_topics) == (
        ["one:9093", "two:9093"],
        ["predictions"],
        ["labels"],
    )
    assert (source.group_id, source.session_timeout) == ("watchers", "10s")
    assert (source.client, source.auto_offset_reset) == ("confluent", "latest")
    assert source.partitions is not None
    assert (source.partitions.number, source.partitions.of) == (1, 3)
    assert source.tls == TlsConfig(
        ca_file="ca.pem", cert_file="own.pem", key_file="own.key", key_password_file="pass", check_hostname=False
    )
    assert source.sasl == SaslConfig(mechanism="SCRAM-SHA-512", username="exporter", password="s3cret")
    assert source.headers == {"model": "x-model", "content_type": "x-type"}
    assert fields_of(source).id == ("request", "id")


def test_kafka_needs_only_servers_and_a_topic():
    (source,) = load(a_kafka()).sources
    assert isinstance(source, KafkaConfig)
    assert (source.group_id, source.partitions, source.tls, source.sasl) == (None, None, None, None)
    assert (source.client, source.auto_offset_reset, source.session_timeout) == ("auto", "earliest", "45s")


@pytest.mark.parametrize(
    "member, number",
    [(0, 0), (2, 2), ("2", 2), ("${POD_INDEX}", 1), ("${POD_NAME}", 2), ("exporter-blue-0", 0), ("007", 7)],
)
def test_a_member_is_a_number_or_the_name_of_a_pod_that_ends_with_one(member: int | str, number: int):
    text = a_kafka(partitions={"member": member, "of": 8})
    (source,) = load(text, POD_INDEX="1", POD_NAME="exporter-2").sources
    assert isinstance(source, KafkaConfig)
    assert source.partitions is not None
    assert source.partitions.number == number


def test_a_model_may_learn_from_kafka_where_one_process_reads_all_of_it():
    text = a_kafka('[{"name": "m", "learn": 1000}]', partitions={"member": 0, "of": 1})
    assert load(text).models[0].learn == 1000


BAD = {
    # keys
    "modles: []": "modles: unknown key; did you mean models?",
    a_model(windw="1h"): "models[0].windw: unknown key; did you mean window?",
    a_model(thresholds={"ps": 1}): "models[0].thresholds.ps: unknown key; did you mean psi?",
    "auth: {write_token: x}": "auth.write_token: unknown key; did you mean write_token_file?",
    a_source(type="http", tme="event"): "sources[0].tme: unknown key; did you mean time?",
    "zzzzzzzz: 1": "zzzzzzzz: unknown key",
    # types
    "[1]": "Expected `object`, got `array`",
    "tick: 5": "tick: expected `str`, got `int`",
    a_model(references="r.json"): "models[0].references: expected `array`, got `str`",
    "models: [{window: 1h}]": "models[0]: object missing required field `name`",
    "insecure: perhaps": "insecure: expected `bool`, got `str`",
    a_source(path="a.jsonl"): "sources[0]: object missing required field `type`",
    a_source(type="carrier pigeon"): "sources[0].type: invalid value 'carrier pigeon'",
    a_source(type="http", time="local"): "sources[0].time: invalid enum value 'local'",
    # units
    "tick: 5 s": "tick: a duration such as 250ms, 30s, 5m, 1h or 30d expected, found '5 s'",
    "tick: 0s": "tick: a duration such as 250ms, 30s, 5m, 1h or 30d expected, found '0s'",
    a_model(window="1w"): "models[0].window: a duration such as 250ms, 30s, 5m, 1h or 30d expected, found '1w'",
    a_model(max_age="-1d"): "models[0].max_age: a duration such as 250ms, 30s, 5m, 1h or 30d expected, found '-1d'",
    a_model(error_budget=0): "models[0].error_budget: ",
    a_model(latency_objective={"p99": "fast"}): "models[0].latency_objective.p99: a duration such as",
    a_model(latency_objective={"99": "1s"}): "models[0].latency_objective.99: a quantile such as p50, p99 or p99.9",
    a_model(latency_objective={"p0": "1s"}): "models[0].latency_objective.p0: a quantile such as p50, p99 or p99.9",
    # impossible values
    a_model(window="10ms"): "models[0].window: at least 1s expected, found '10ms'",
    a_model(window="9999999d"): "models[0].window: at most 366d expected, found '9999999d'",
    a_source(type="http", model="x"): "sources[0].model: one of the configured models expected, found 'x'",
    a_model(min_samples=0): "models[0].min_samples: expected `int` >= 1",
    a_model(thresholds={"canary_margn": 0.1}): "models[0].thresholds.canary_margn: unknown key; did you mean",
    a_model(thresholds={"traffic_ratio": 1}): "models[0].thresholds.traffic_ratio: expected `float` < 1.0",
    a_model(thresholds={"faulty_ratio": 0}): "models[0].thresholds.faulty_ratio: expected `float` > 0.0",
    a_model(thresholds={"faulty_features": 0}): "models[0].thresholds.faulty_features: expected `int` >= 1",
    a_model(thresholds={"canary_predictions": 0.5}): "models[0].thresholds.canary_predictions: expected `int`",
    a_model(thresholds={"canary_margin": -0.1}): "models[0].thresholds.canary_margin: expected `float` >= 0.0",
    a_model(thresholds={"canary_z": 0}): "models[0].thresholds.canary_z: expected `float` > 0.0",
    a_model(thresholds={"psi": 0}): "models[0].thresholds.psi: expected `float` > 0.0",
    "models: [{name: m, thresholds: {psi: .nan}}]": "models[0].thresholds.psi: expected `float` > 0.0",
    a_model(budget={"pages": 0}): "models[0].budget.pages: expected `float` > 0",
    a_model(budget={"per": "1q"}): "models[0].budget.per: a duration such as 250ms, 30s, 5m, 1h or 30d expected",
    a_model(budget={"per": "30m"}): "models[0].budget.per: at least the window, 1h, expected, found '30m'",
    a_model(budget={"page": 1}): "models[0].budget.page: unknown key; did you mean pages?",
    a_model(budget={}, thresholds={"alpha": 0.01}): "models[0].budget: thresholds.alpha sets the level of each test;",
    a_model(thresholds={"alpha": 1}): "models[0].thresholds.alpha: expected `float` < 1.0",
    a_model(thresholds={"drifted_features_ratio": 1.1}): "models[0].thresholds.drifted_features_ratio: expected",
    a_model(
        thresholds={"quality": {"acuracy": 0.1}}
    ): "models[0].thresholds.quality.acuracy: unknown; expected one of acc",
    a_model(thresholds={"quality": {"mae": 0}}): "models[0].thresholds.quality: expected `float` > 0.0",
    a_model(labels={"maturity": "500ms"}): "models[0].labels.maturity: at least 1s expected, found '500ms'",
    a_model(labels={"sample": 0}): "models[0].labels.sample: expected `float` > 0.0",
    a_model(labels={"max_pending": 0}): "models[0].labels.max_pending: expected `int` >= 1",
    a_model(labels={"min_samples": 0}): "models[0].labels.min_samples: expected `int` >= 1",
    a_model(learn=5): "models[0].learn: expected `int` >= 100",
    a_model(name=""): "models[0].name: expected `str` of length >= 1",
    a_model(trained="yesterday"): "models[0].trained: invalid RFC3339 encoded datetime",
    "models: [{name: m, trained: 2026-13-01}]": "not YAML: month must be in 1..12",
    a_model(info={"taem": "risk"}): "models[0].info.taem: unknown; expected one of role, team, project",
    "listen: nowhere": "listen: host:port expected, found 'nowhere'",
    "listen: 'localhost:70000'": "listen: host:port expected, found 'localhost:70000'",
    a_model(segments=[{"name": "tier", "top": 0}]): "models[0].segments[0].top: expected `int` >= 1",
    a_model(segments=[""]): "models[0].segments[0]: expected `str` of length >= 1",
    a_model(segments=[{"tag": "tier"}]): "models[0].segments[0].tag: unknown key",
    # what does not fit together
    a_model(segments=["a", {"name": "a", "top": 3}]): "models[0].segments[1]: 'a' is configured twice",
    "models: [{name: m}, {name: m}]": "models[1].name: 'm' is configured twice",
    a_model(learn=1000, references=["r.json"]): "models[0].learn: the model has references; remove one of the two",
    "sources: [{type: http}, {type: http}]": "sources: one of type http at most",
    a_source(type="file", path="t.csv"): "sources[0].model: a table needs one of the configured models, found None",
    a_source(type="file", path="t.csv", model="x"): "sources[0].model: a table needs one of the configured models",
    a_source(type="file", path="t.parquet", model="m", follow=True): "sources[0].follow: a Parquet file cannot",
    a_source(type="file", path="t.log"): "sources[0].format: jsonl, csv or parquet expected, as '.log' does not tell",
    a_source(type="http", fields={"idd": "x"}): "sources[0].fields.idd: unknown field; expected one of model, version",
    a_source(type="http", fields={"id": "a..b"}): "sources[0].fields.id: 'a..b' is not a dotted path",
    a_source(type="http", fields={"score": "features"}): "sources[0].fields.features: features leads through features",
    # Kafka
    a_kafka(bootstrap_servers=[]): "sources[0].bootstrap_servers: expected `array` of length >= 1",
    a_kafka(bootstrap_servers="k:9092"): "sources[0].bootstrap_servers: expected `array`, got `str`",
    '{"sources": [{"type": "kafka", "topics": ["t"]}]}': "sources[0]: object missing required field `boot",
    a_kafka(topics=[]): "sources[0].topics: at least one topic expected",
    a_kafka(topics=[""]): "sources[0].topics[0]: expected `str` of length >= 1",
    a_kafka(topic="t"): "sources[0].topic: unknown key; did you mean topics?",
    a_kafka(client="librdkafka"): "sources[0].client: invalid enum value 'librdkafka'",
    a_kafka(auto_offset_reset="none"): "sources[0].auto_offset_reset: invalid enum value 'none'",
    a_kafka(session_timeout="45"): "sources[0].session_timeout: a duration such as 250ms, 30s, 5m, 1h or 30d expected",
    a_kafka(
        headers={"modell": "x"}
    ): "sources[0].headers.modell: unknown; expected one of model, version, content_type",
    a_kafka(headers={"model": ""}): "sources[0].headers: expected `str` of length >= 1",
    a_kafka(model="x"): "sources[0].model: one of the configured models expected, found 'x'",
    a_kafka(partitions={"member": 0}): "sources[0].partitions: object missing required field `of`",
    a_kafka(partitions={"member": 3, "of": 3}): "sources[0].partitions.member: less than 3 expected, found 3",
    a_kafka(partitions={"member": "pod-3", "of": 3}): "sources[0].partitions.member: less than 3 expected, found pod-3",
    a_kafka(partitions={"member": -1, "of": 3}): "sources[0].partitions.member: expected `int` >= 0",
    a_kafka(partitions={"member": "pod", "of": 3}): "sources[0].partitions.member: expected `str` matching regex",
    a_kafka(partitions={"member": 0, "of": 0}): "sources[0].partitions.of: expected `int` >= 1",
    a_kafka(partitions={"member": "${POD_INDEX}", "of": 2}): "sources[0].partitions.member: the environment has no",
    a_kafka(
        '[{"name": "m", "learn": 1000}]'
    ): "models[0].learn: each member of sources[0] would learn another reference",
    a_kafka('[{"name": "m", "learn": 1000}]', partitions={"member": 0, "of": 2}): "models[0].learn: each member of",
    a_kafka(tls={"cafile": "x"}): "sources[0].tls.cafile: unknown key; did you mean ca_file?",
    a_kafka(tls=True): "sources[0].tls: expected `object | null`, got `bool`",
    a_kafka(sasl={"mechanism": "GSSAPI"}): "sources[0].sasl.mechanism: invalid enum value 'GSSAPI'",
    a_kafka(sasl={"username": "u", "password": "p"}): "sources[0].sasl: object missing required field `mechanism`",
    a_kafka(sasl={"mechanism": "OAUTHBEARER"}): "sources[0].sasl.token_file: expected for OAUTHBEARER",
    a_kafka(sasl={"mechanism": "PLAIN", "username": "u"}): "sources[0].sasl: username and one of password and",
    a_kafka(sasl={"mechanism": "PLAIN", "password": "p"}): "sources[0].sasl: username and one of password and",
    a_kafka(
        sasl={"mechanism": "SCRAM-SHA-256", "username": "u", "password": "p", "password_file": "f"}
    ): "sources[0].sasl: username and one of password and password_file expected for SCRAM-SHA-256",
    # state
    "state: {}": "state: object missing required field `path`",
    "state: {path: ''}": "state.path: expected `str` of length >= 1",
    "state: {folder: x}": "state.folder: unknown key",
    "state: /data": "state: expected `object | null`, got `str`",
    # environment and YAML
    "listen: ${NOWHERE}": "listen: the environment has no NOWHERE",
    a_model(references=["${HERE}/${NOWHERE}"]): "models[0].references[0]: the environment has no NOWHERE",
    "models: [": "not YAML: while parsing a flow node",
    "a: b: c": "not YAML: mapping values are not allowed here",
    "a: &a [*a]": "an anchor holds itself",
    "[" * 5000: "not YAML: ",
    "\0": "not YAML: ",
}


@pytest.mark.parametrize("text, message", list(BAD.items()), ids=[message[:60] for message in BAD.values()])
def test_what_must_not_be_used_is_refused_in_one_line_that_names_file_key_and_expectation(text: str, message: str):
    with pytest.raises(ConfigError) as refused:
        load(text, HERE="/here")
    assert str(refused.value).startswith(f"c.yaml: {message}")
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path}/none.yaml: No such file or directory"):
        config.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path}: Is a directory"):
        config.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match=r"cannot read .*latin.yaml: .*utf-8"):
        config.load(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    "text, listen, loopback",
    [
        ("0.0.0.0:9878", Listen("0.0.0.0", 9878), False),
        (":9878", Listen("0.0.0.0", 9878), False),
        ("127.0.0.1:0", Listen("127.0.0.1", 0), True),
        ("localhost:80", Listen("localhost", 80), True),
        ("[::1]:80", Listen("::1", 80), True),
        ("10.0.0.1:80", Listen("10.0.0.1", 80), False),
    ],
)
def test_where_to_listen(text: str, listen: Listen, *, loopback: bool):
    found = config.listen_address(text)
    assert (found, found.loopback) == (listen, loopback)


class TestTokens:
    def auth(self, tmp_path: Path) -> Config:
        return load(f"auth: {{write_token_file: write, read_token_file: {tmp_path}/read}}")

    def test_are_read_without_the_line_break_from_paths_beside_the_configuration(self, tmp_path: Path):
        (tmp_path / "write").write_text("s3cret\n")
        (tmp_path / "read").write_text("  other ")
        found = access(self.auth(tmp_path), tmp_path)
        assert (found.write_token, found.read_token, found.insecure) == ("s3cret", "other", False)

    def test_none_are_asked_for_by_default(self, tmp_path: Path):
        found = access(load("insecure: true"), tmp_path)
        assert (found.write_token, found.read_token, found.insecure) == (None, None, True)

    def test_a_file_without_a_token_is_refused_by_its_key(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=f"auth.read_token_file: cannot read {tmp_path}/read: No such file"):
            access(self.auth(tmp_path), tmp_path)
        (tmp_path / "read").write_text("\n")
        with pytest.raises(ConfigError, match=f"auth.read_token_file: {tmp_path}/read is empty"):
            access(self.auth(tmp_path), tmp_path)
        (tmp_path / "read").write_bytes(b"\xff")
        with pytest.raises(ConfigError, match=f"auth.read_token_file: cannot read {tmp_path}/read: not text"):
            access(self.auth(tmp_path), tmp_path)
