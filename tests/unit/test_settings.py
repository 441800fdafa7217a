from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.keys import encryption_keys
from gateway.settings.load import load, models_of
from gateway.settings.sections import DicomwebArchive, Retry, Settings
from gateway.settings.tree import Misconfigured
from tests.unit.configured import ENVIRONMENT, WHOLE, problems


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
            "gateway.yaml line 31: departments.emergency.applications.milvue-trauma.settle:"
            " a duration is written like 500ms, 5s, 10m or 24h",
        ),
        (
            "  acknowledge: stored",
            "  acknowlege: stored",
            "gateway.yaml line 9: sectra.acknowlege is not a key here;"
            " allowed: acknowledge, allowed_networks, open, secret_path, servers; did you mean acknowledge?",
        ),
        (
            "        adapter: milvue\n",
            "",
            "gateway.yaml line 25: departments.emergency.applications.milvue-trauma.adapter is missing",
        ),
        (
            "adapter: milvue",
            "adapter: milview",
            "gateway.yaml line 27: departments.emergency.applications.milvue-trauma.adapter:"
            " no adapter milview; allowed: milvue; did you mean milvue?",
        ),
        (
            "archives: [vna]",
            "archives: [vna, pacs]",
            "gateway.yaml line 28: departments.emergency.applications.milvue-trauma.archives:"
            " no archive pacs; allowed: vna",
        ),
        (
            "${VNA_PASSWORD}",
            "${NO_SUCH}",
            "gateway.yaml line 16: archives.vna.password: the environment variable NO_SUCH isn't set",
        ),
        (
            "port: 8080}",
            "port: http}",
            "gateway.yaml line 2: listen.port: a whole number is expected",
        ),
        (
            "acknowledge: stored",
            "acknowledge: never",
            "gateway.yaml line 9: sectra.acknowledge: should be 'stored' or 'temporary'",
        ),
        (
            "kind: dicomweb",
            "kind: dicom",
            "gateway.yaml line 16: archives.vna.kind: no kind dicom; allowed: 'dicomweb', 'dimse'",
        ),
        (
            "[10.1.0.0/16]",
            "[10.1.2.3/8]",
            "gateway.yaml line 8: sectra.allowed_networks.0: 10.1.2.3/8 is an address within a network;"
            " the network is 10.0.0.0/8",
        ),
        (
            "[10.1.0.0/16]",
            "[everybody]",
            "gateway.yaml line 8: sectra.allowed_networks.0: a network is written like 10.1.0.0/16",
        ),
        (
            "allowed_networks: [10.1.0.0/16]",
            'secret_path: "{any}"',
            "gateway.yaml line 8: sectra.secret_path: a secret path is 16 to 128 letters,",
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


def test_a_key_is_on_the_disk_or_not_there(tmp_path, monkeypatch):
    """What it encrypts may outlive a power cut that it doesn't."""
    settings = load(None, {"GATEWAY_DATA_DIR": str(tmp_path / "data")})
    synced, sync = [], os.fsync

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().parent)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Misconfigured, match="can't be used"):
        encryption_keys(settings)
    assert list((tmp_path / "data").iterdir()) == []
    monkeypatch.setattr(os, "fsync", note)
    encryption_keys(settings)
    assert synced == [tmp_path / "data", tmp_path], "the key, and then that it is in its folder"


def test_dicom_must_be_spoken_as_it_is_needed(write):
    """Stored by C-STORE where only DICOMweb is spoken, moved and sent to a service that isn't there."""
    text = re.sub(r"^dimse:.*\n", "", WHOLE, flags=re.MULTILINE)
    text = text.replace("{kind: stow, archive: vna}", "{kind: c-store, archive: vna}")
    told = problems(write(text.replace("settle: 10s", "settle: 10s\n        ae_title: TRAUMA")))
    assert any(
        "destinations.vna.archive: c-store needs an archive of kind dimse" in problem for problem in told
    )
    assert any("ae_title: needs our storage service: configure dimse" in problem for problem in told)


def test_dimse_goes_through_no_proxy(write):
    told = problems(
        write(WHOLE.replace("adapters:\n", "adapters:\n  node: {kind: dimse, proxy: 'http://p:3128'}\n", 1))
    )
    assert any("adapters.node.proxy: DIMSE goes through no HTTP proxy" in problem for problem in told), told


def test_the_sample_names_every_variable():
    sample = Path(__file__).parents[2].joinpath(".env.sample").read_text()
    named = set(re.findall(r"^#? ?(GATEWAY_[A-Z0-9_]+)=", sample, re.MULTILINE))
    assert named == set(variables(Settings)) | {"GATEWAY_CONFIG"}


def variables(model, prefix="GATEWAY_"):
    """Every value that can be set, with NAME for the names that a hospital chooses."""
    for name, field in model.model_fields.items():
        variable = prefix + (field.alias or name).upper()
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


@pytest.mark.parametrize(
    "url",
    [
        "https://pacs.hospital/SectraPathologyServer?",
        "https://pacs.hospital/SectraPathologyServer#",
        "https://pacs.hospital/SectraPathologyServer/?a=b",
        "https://pacs.hospital/../SectraPathologyServer",
        "https://pacs.hospital/%2e%2e/SectraPathologyServer",
        "https://pacs.hospital/%252E%252e/SectraPathologyServer",
        "https://pacs.hospital/%25252e./SectraPathologyServer",
        "https://pacs.hospital/..;x/SectraPathologyServer",
        "https://pacs.hospital/a b",
    ],
)
def test_no_path_can_be_joined_to_such_a_url(write, url):
    told = problems(write(WHOLE.replace("https://pacs.hospital/SectraPathologyServer/", url)))
    assert told == [
        "gateway.yaml line 12: sectra.servers.main.callback_urls.0:"
        " a url that paths are joined to has no ?, #, blank, backslash or dots as a step"
    ]


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("https://pacs/view", "names what it leads to: {slide_id}, {accession_number}"),
        ("https://pacs/view?{patient}", "names what it leads to"),
        ("https://pacs/view?{slide_id", "names what it leads to"),
        ("https://pacs/view?{slide_id}}", "in its path or behind the ?"),
        ("https://{slide_id}.pacs/", "in its path or behind the ?"),
        ("javascript:open({slide_id})", "in its path or behind the ?"),
        ("file://pacs/{slide_id}", "begins with http:// or https://"),
        ("https://pacs/a {slide_id}", "has no blank"),
    ],
)
def test_a_link_into_sectra_leads_to_what_a_job_has(write, link, why):
    text = WHOLE.replace("      callback_urls:", f'      link: "{link}"\n      callback_urls:')
    [told] = problems(write(text))
    assert "sectra.servers.main.link" in told and why in told


@pytest.mark.parametrize(
    "address", ["udp://audit:514", "tcp://audit:514", "audit:6514", "tls://", "tls://audit:port", "tls://a/b"]
)
def test_an_audit_collector_is_told_by_tls_alone(write, address):
    [told] = problems(write(f'{WHOLE}audit_log: {{syslog: "{address}"}}\n'))
    assert (
        "audit_log.syslog: an audit collector is written like tls://audit.hospital:6514; nothing but TLS"
        in told
    )


def test_a_credential_is_one_that_systemd_gives_by_its_name_or_in_a_folder(tmp_path: Path, write) -> None:
    path = write('data_dir: "${credential:db}"')
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    [told] = problems(path, environment)
    assert told.endswith(f"the file {tmp_path}/db can't be read")
    for name in ("gateway_db", "db"):
        (tmp_path / name).write_text(f"/{name}\n")
        assert load(path, environment).data_dir == Path(f"/{name}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'data_dir: "${credential:key}"',
            "gateway.yaml line 1: data_dir: systemd gives no credential key",
        ),
        ("data_dir: a\x07b", "gateway.yaml line 1: isn't YAML: a character that can't stand here (U+0007)"),
        ("migrate_on_start: true\n\n# \x00", "gateway.yaml line 3: isn't YAML: a character"),
        (
            'data_dir: "a\\0b"',
            "gateway.yaml line 1: data_dir: holds a character that can't stand here (U+0000)",
        ),
        ('data_dir: "a\\ud800b"', "gateway.yaml line 1: "),
        ('"a\\eb": 1', "gateway.yaml line 1: 'a\\x1bb' is no key: it holds control characters"),
        ("data_dir: 2026-13-45", "gateway.yaml line 1: isn't YAML: a value that can't be read"),
        ("1: x", "gateway.yaml line 1: 1 is not a key here"),
        ("departments: {a: {1.5: x}}", "gateway.yaml line 1: departments.a.1.5 is not a key here"),
        ("[1]: x", "gateway.yaml line 1: isn't YAML"),
        ("? {a: b}\n: x", "gateway.yaml line 1: isn't YAML"),
        ("a: &a [*a]", "gateway.yaml line 1: isn't YAML"),
        ("[" * 5000, "gateway.yaml: is nested too deeply"),
        (
            "_cli_parse_args: true",
            "gateway.yaml line 1: _cli_parse_args is not a key here; allowed: adapters",
        ),
        ("_env_file: /etc/passwd", "gateway.yaml line 1: _env_file is not a key here"),
        ("__pydantic_self__: 1", "gateway.yaml line 1: __pydantic_self__ is not a key here"),
        ("self: 1", "gateway.yaml line 1: self is not a key here"),
        ('data_dir: "${file:/a\\0}"', "gateway.yaml line 1: data_dir: "),
    ],
)
def test_whatever_stands_there_is_told_in_a_sentence(write, text, sentence):
    told = problems(write(text))
    assert any(problem.startswith(sentence) for problem in told), told


def test_a_name_may_be_a_number(write):
    settings = load(
        write(WHOLE.replace("  emergency:", "  1:").replace("milvue-trauma:", "2026:")), ENVIRONMENT
    )
    assert list(settings.departments) == ["1"] and list(settings.applications) == ["2026"]


@pytest.mark.parametrize(
    "password", ["[", "{", "[a", "[a]", "{a: b}", "pa${x}word", "${", "$", "a]", "[1, 2]"]
)
def test_a_variable_says_what_stands_in_it(write, password):
    settings = load(write(WHOLE), ENVIRONMENT | {"GATEWAY_ARCHIVES__VNA__PASSWORD": password})
    vna = settings.archives["vna"]
    assert isinstance(vna, DicomwebArchive) and vna.password is not None
    assert vna.password.get_secret_value() == password


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_password_can_be_given_by_a_variable(password):
    if "${file:" in password:
        return
    environment = {"GATEWAY_ARCHIVES__VNA__KIND": "dicomweb", "GATEWAY_ARCHIVES__VNA__URL": "https://vna"}
    settings = load(None, environment | {"GATEWAY_ARCHIVES__VNA__PASSWORD": password})
    vna = settings.archives["vna"]
    assert isinstance(vna, DicomwebArchive) and vna.password is not None
    assert vna.password.get_secret_value() == password


def test_only_what_kubernetes_sets_is_passed_over(write):
    linked = {"GATEWAY_PORT": "tcp://10.0.0.1:80", "GATEWAY_DB_PORT": "udp://10.0.0.2:53"}
    load(write(WHOLE), ENVIRONMENT | linked)
    for name in ("GATEWAY_LISTEN__PORT", "GATEWAY_PUBLIC_URL", "GATEWAY_DATABASE_URL", "GATEWAY_LISTN"):
        told = problems(write(WHOLE), ENVIRONMENT | {name: "tcp://10.0.0.1:80"})
        assert any(problem.startswith(name) for problem in told), told


def test_a_pause_grows_no_further_however_often_one_has_tried():
    for failed in (1, 1025, 10**6):
        assert 0 < Retry().pause(failed) <= Retry().most


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("public_url: https://gateway.hospital\n", "", "console.oidc: public_url is missing"),
        ("https://id.hospital", "http://id.hospital", "console.oidc.issuer: an issuer is asked by https"),
        (
            "roles: {viewer: [a]}",
            "rolls: {}",
            "console.oidc.rolls is not a key here; allowed: ca,",
        ),
        (
            "proxy: http://proxy:3128",
            "proxy: proxy:3128",
            "archives.vna.proxy: a proxy is written like http://",
        ),
        ("ca: ca.pem", "key: our.key", "a key belongs to a certificate: certificate is missing"),
        ("client_ca: ca.crt, ", "", "subjects are those of client certificates: client_ca is missing"),
    ],
)
def test_what_is_wrong_about_trust_is_told(write, old, new, sentence):
    oidc = "console: {oidc: {issuer: https://id.hospital, client_id: g, roles: {viewer: [a]}}}\n"
    tls = "tls: {certificate: our.crt, key: our.key, client_ca: ca.crt, subjects: [pacs]}"
    text = oidc + WHOLE.replace("port: 8080}", f"port: 8080, {tls}}}")
    text = text.replace("username: gw,", "username: gw, ca: ca.pem, proxy: http://proxy:3128,")
    load(write(text), ENVIRONMENT)
    assert old in text
    told = problems(write(text.replace(old, new, 1)))
    assert any(sentence in problem for problem in told), told


@pytest.mark.parametrize(
    ("was", "becomes", "sentence"),
    [
        ("settle: 10s", "priority: high", "priority: a whole number is expected"),
        ("modalities: [CR, DX]", "modalities: CR", "accept.modalities: a list is expected, like [a, b]"),
        ("settle: 10s", "deidentify: true", "deidentify: false, or the name of one of the profiles, is ex"),
        ("settle: 10s", "input: [a]", "input: allowed: whole_slide, multi_area, {tagged_polygon: {tags:"),
        ("settle: 10s", "input: {tagged_polygon: {}}", "input.tagged_polygon.tags is missing"),
        ("display_name: Milvue trauma", 'display_name: ""', "display_name: is empty; give it a value"),
        ("result_within: 30m", "result_within: 0s", "result_within: should be greater than 0"),
        ("milvue-trauma:", "milvue trauma:", "applications.milvue trauma: a name has letters, digits, dots"),
        ('role: operator, sha256: "', 'role: operator, sha256: "z', "sha256: 64 hexadecimal digits"),
        ("settle: 10s", "ae_title: PACSPACSPACSPACSX", "ae_title: an AE title has 1 to 16 plain"),
        ("kind: stow, archive: vna", "kind: hl7, host: ris, port: 0", "vna.port: should be greater than or"),
        (
            "kind: stow, archive: vna",
            "kind: hl7, host: ris, port: [1]",
            "vna.port: a whole number is expected",
        ),
        ("settle: 10s", "register: {accepted: soon}", "register.accepted: a date is written like 2026-01-31"),
        ("public_url: https://gateway.hospital", "data_dir: 5", "data_dir: a path is expected"),
        (
            '"${VNA_PASSWORD}"',
            '"${VNA_PASSWORD"',
            "archives.vna.password: a reference is written like ${NAME} or",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_in_nobody_elses_words(write, was, becomes, sentence):
    assert was in WHOLE
    line = WHOLE[: WHOLE.index(was)].count("\n") + 1
    [told] = problems(write(WHOLE.replace(was, becomes, 1)))
    assert told.startswith(f"gateway.yaml line {line}: ") and sentence in told, told


def test_a_variable_may_hold_what_looks_like_half_a_reference(write):
    odd = ENVIRONMENT | {"GATEWAY_ARCHIVES__VNA__PASSWORD": "pa${ss"}
    vna = load(write(WHOLE), odd).archives["vna"]
    assert isinstance(vna, DicomwebArchive) and vna.password
    assert vna.password.get_secret_value() == "pa${ss"
