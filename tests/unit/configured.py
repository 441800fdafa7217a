"""A configuration that is good, for tests to spoil."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.settings.load import load
from gateway.settings.tree import Misconfigured

WHOLE = """\
public_url: https://gateway.hospital
listen: {host: 127.0.0.1, port: 8080}
database_url: postgresql://gateway@db/gateway
secret_keys: ["${file:KEYFILE}"]
api_tokens:
  - {name: ops, role: operator, sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
sectra:
  allowed_networks: [10.1.0.0/16]
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


def problems(path: Path, environment: Mapping[str, str] = ENVIRONMENT) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load(path, environment)
    return [problem.replace(str(path), "gateway.yaml") for problem in caught.value.problems]
