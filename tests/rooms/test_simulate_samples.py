"""The samples and the simulated results are objects that a validator has nothing against."""

from __future__ import annotations

import io
import subprocess

import pytest
from pydicom import dcmread

from gateway.simulate.milvue import COMMANDS, Behaviour, Study, make_results
from gateway.simulate.samples import SampleStudy, make_samples


def find_errors(data, folder):
    path = folder / "object.dcm"
    path.write_bytes(data)
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False, timeout=30)
    said = told.stdout + told.stderr
    assert said.strip(), "dciodvfy names at least the kind of object"
    return [line for line in said.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("sample", make_samples(), ids=lambda sample: sample.identity.key)
def test_samples_are_valid(sample: SampleStudy, tmp_path):
    assert len(sample.files) >= 2
    for data in sample.files:
        assert find_errors(data, tmp_path) == []
        dataset = dcmread(io.BytesIO(data))
        assert dataset.StudyInstanceUID == sample.identity.study_instance_uid
        assert dataset.pixel_array.std() > 10  # a picture, not an empty frame


@pytest.mark.parametrize("sample", make_samples(), ids=lambda sample: sample.identity.key)
def test_results_are_valid_and_of_the_same_study(sample: SampleStudy, tmp_path):
    source = dcmread(io.BytesIO(sample.files[0]))
    results = make_results(Study({"1": source}, sample.files[0]), COMMANDS[0], Behaviour())
    assert len(results) == 2
    for data in results:
        assert find_errors(data, tmp_path) == []
        made = dcmread(io.BytesIO(data))
        assert (made.StudyInstanceUID, made.PatientID) == (source.StudyInstanceUID, source.PatientID)
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
