from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from gateway.settings.load import encryption_keys, load, models_of
from gateway.settings.sections import DicomwebArchive, Settings
from gateway.settings.tree import Misconfigured

WHOLE = """\
public_url: https://gateway.hospital
listen: {host: 127.0.0.1, port: 8080}
database_url: postgresql://gateway@db/gateway
secret_keys: ["${file:KEYFILE}"]
api_tokens:
  - {name: ops, role: operator, sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
sectra:
  acknowledge: stored
  servers:
    main:
      callback_urls: ["https://pacs.hospital/SectraPathologyServer/"]
      username: svc
      password: ${SECTRA_PASSWORD}
archives:
  vna: {kind: dicomweb, url: https://vna.hospital/dicom-web, username: gw, password: "${VNA_PASSWORD}"}
destinations:
  vna: {kind: stow, archive: vna}
adapters:
  milvue: {kind: milvue, url: https://milvue.example, token: t, commands: [smarturgences], max_concurrent: 8}
departments:
  emergency:
    contact: radiology-it@hospital
    applications:
      milvue-trauma:
        display_name: Milvue trauma
        adapter: milvue
        archives: [vna]
        deliver: [sectra, vna]
        accept: {modalities: [CR, DX], max_bytes: 2GB}
        settle: 10s
        result_within: 30m
        retry: {attempts: 8, first: 500ms, most: 10m}
"""
ENVIRONMENT = {"SECTRA_PASSWORD": "s3cret", "VNA_PASSWORD": "vna-s3cret"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "key").write_text(Fernet.generate_key().decode() + "\n")

    def write(text: str) -> Path:
        path = tmp_path / "gateway.yaml"
        path.write_text(text.replace("KEYFILE", str(tmp_path / "key")))
        return path

    return write


def problems(path, environment=ENVIRONMENT) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load(path, environment)
    return [problem.replace(str(path), "gateway.yaml") for problem in caught.value.problems]


def test_the_whole_example_is_read(write):
    settings = load(write(WHOLE), ENVIRONMENT)
    department, application = settings.application("milvue-trauma") or pytest.fail("it isn't there")
    assert department == "emergency"
    assert application.accept.max_bytes == 2_000_000_000
    assert (application.settle, application.result_within, application.retry.first) == (10.0, 1800.0, 0.5)
    vna = settings.archives["vna"]
    assert isinstance(vna, DicomwebArchive) and vna.password is not None
    assert vna.password.get_secret_value() == "vna-s3cret"
    assert settings.adapters["milvue"].options["commands"] == ["smarturgences"]


def test_no_secret_is_shown(write):
    shown = repr(load(write(WHOLE), ENVIRONMENT))
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "settle: 10s",
            "settle: 10 seconds",
            "gateway.yaml line 30: departments.emergency.applications.milvue-trauma.settle:"
            " a duration is written like 500ms, 5s, 10m or 24h",
        ),
        (
            "  acknowledge: stored",
            "  acknowlege: stored",
            "gateway.yaml line 8: sectra.acknowlege is not a key here;"
            " allowed: acknowledge, allowed_networks, secret_path, servers",
        ),
        (
            "        adapter: milvue\n",
            "",
            "gateway.yaml line 24: departments.emergency.applications.milvue-trauma.adapter is missing",
        ),
        (
            "adapter: milvue",
            "adapter: milview",
            "gateway.yaml line 26: departments.emergency.applications.milvue-trauma.adapter:"
            " no adapter milview; allowed: milvue",
        ),
        (
            "archives: [vna]",
            "archives: [vna, pacs]",
            "gateway.yaml line 27: departments.emergency.applications.milvue-trauma.archives:"
            " no archive pacs; allowed: vna",
        ),
        (
            "${VNA_PASSWORD}",
            "${NO_SUCH}",
            "gateway.yaml line 15: archives.vna.password: the environment variable NO_SUCH isn't set",
        ),
        (
            "port: 8080}",
            "port: http}",
            "gateway.yaml line 2: listen.port: should be a valid integer",
        ),
        (
            "acknowledge: stored",
            "acknowledge: never",
            "gateway.yaml line 8: sectra.acknowledge: should be 'stored' or 'temporary'",
        ),
        (
            "kind: dicomweb",
            "kind: dicom",
            "gateway.yaml line 15: archives.vna.kind: no kind dicom; allowed: 'dicomweb', 'dimse'",
        ),
        ("port: 8080}", "port: 8080", "gateway.yaml line 3: isn't YAML"),
        ("listen:", "public_url:", "gateway.yaml line 2: public_url stands twice"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_allowed(write, old, new, sentence):
    assert old in WHOLE
    told = problems(write(WHOLE.replace(old, new, 1)))
    assert any(problem.startswith(sentence) for problem in told), told


def test_variables_lie_over_the_file_whatever_their_case(write):
    environment = ENVIRONMENT | {
        "GATEWAY_LISTEN__PORT": "9999",
        "GATEWAY_DEPARTMENTS__EMERGENCY__APPLICATIONS__MILVUE_TRAUMA__PRIORITY": "9",
        "GATEWAY_DEPARTMENTS__EMERGENCY__APPLICATIONS__MILVUE_TRAUMA__ACCEPT": "{modalities: [CT]}",
        "GATEWAY_API_TOKENS__0__ROLE": "viewer",
        "GATEWAY_PORT": "tcp://10.0.0.1:80",
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
    }
    settings = load(write(WHOLE), environment)
    application = settings.applications["milvue-trauma"]
    assert (settings.listen.port, settings.listen.host) == (9999, "127.0.0.1")
    assert (application.priority, application.accept.modalities) == (9, ["CT"])
    assert settings.api_tokens[0].role == "viewer"


def test_a_bad_variable_is_named(write):
    told = problems(write(WHOLE), ENVIRONMENT | {"GATEWAY_LISTEN__PORT": "many", "GATEWAY_LISTN": "x"})
    assert any(problem.startswith("GATEWAY_LISTEN__PORT: listen.port: ") for problem in told)
    assert any(
        problem.startswith("GATEWAY_LISTN: listn is not a key here; allowed: adapters,") for problem in told
    )


def test_a_shared_database_needs_a_key(write):
    told = problems(write(re.sub("secret_keys.*\n", "", WHOLE)))
    assert any("secret_keys is missing" in problem for problem in told)


def test_the_embedded_database_makes_its_own_key_once(tmp_path):
    settings = load(None, {"GATEWAY_DATA_DIR": str(tmp_path / "data")})
    first = encryption_keys(settings)
    assert encryption_keys(settings) == first
    Fernet(first[0])
    assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o077 == 0


def test_what_is_not_served_yet_stops_the_start(write):
    told = problems(write(WHOLE.replace("settle: 10s", "shadow: [milvue]")))
    assert told == [
        "gateway.yaml line 30: departments.emergency.applications.milvue-trauma.shadow: shadow:"
        " not served by this release yet; take it out to start"
    ]


def test_dicom_must_be_spoken_as_it_is_needed(write):
    """Stored by C-STORE where only DICOMweb is spoken, moved and sent to a service that isn't there."""
    text = re.sub(r"^dimse:.*\n", "", WHOLE, flags=re.MULTILINE)
    text = text.replace("{kind: stow, archive: vna}", "{kind: c-store, archive: vna}")
    told = problems(write(text.replace("settle: 10s", "settle: 10s\n        ae_title: TRAUMA")))
    assert any(
        "destinations.vna.archive: c-store needs an archive of kind dimse" in problem for problem in told
    )
    assert any("ae_title: needs our storage service: configure dimse" in problem for problem in told)


def test_the_sample_names_every_variable():
    sample = Path(__file__).parents[2].joinpath(".env.sample").read_text()
    named = set(re.findall(r"^#? ?(GATEWAY_[A-Z0-9_]+)=", sample, re.MULTILINE))
    assert named == set(variables(Settings)) | {"GATEWAY_CONFIG"}


def variables(model, prefix="GATEWAY_"):
    """Every value that can be set, with NAME for the names that a hospital chooses."""
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        inner = models_of(field.annotation)
        kinds = inner if isinstance(inner, tuple) else [inner] if inner else []
        text = str(field.annotation)
        nested = "NAME__" if text.startswith("dict[") else "0__" if text.startswith("list[") else ""
        if not kinds or name == "input":
            yield variable
        for kind in kinds if name != "input" else []:
            yield from variables(kind, f"{variable}__{nested}")


def test_slides_come_from_a_server_that_is_configured(write):
    text = re.sub(r"^sectra:\n(  .*\n)*", "", WHOLE, flags=re.MULTILINE)
    told = problems(write(re.sub(r"^  vna: .*$", "  vna: {kind: sectra}", text, count=1, flags=re.MULTILINE)))
    assert any("archives.vna.kind: needs a server: configure sectra.servers" in said for said in told)
