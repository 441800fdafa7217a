"""A small whole-slide pyramid: three resolutions of a painted slide, as VL Whole Slide Microscopy objects."""

from __future__ import annotations

from PIL import ImageCms
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from gateway.simulate.patients import DATE, TIME, Identity, make_uid, write_part10
from gateway.simulate.radiographs import make_code
from gateway.simulate.tissue import encode, paint

WIDTH, HEIGHT, TILE = 1024, 768, 256
MICRONS = 0.5
LEVELS = 3


def _make_specimen(identity: Identity) -> Dataset:
    specimen = Dataset()
    specimen.SpecimenIdentifier = f"{identity.accession_number}-A1-1"
    specimen.SpecimenUID = UID(make_uid("specimen", identity.key))
    specimen.IssuerOfTheSpecimenIdentifierSequence = Sequence([])
    specimen.SpecimenPreparationSequence = Sequence([])
    specimen.PrimaryAnatomicStructureSequence = Sequence([make_code("76752008", "Breast")])
    return specimen


def _make_optical_path() -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.IlluminationTypeCodeSequence = Sequence([make_code("111744", "Brightfield illumination", "DCM")])
    path.IlluminationColorCodeSequence = Sequence([make_code("414298005", "Full Spectrum")])
    path.ICCProfile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path.ColorSpace = "SRGB"
    return path


def _make_measures(microns: float) -> Dataset:
    measures = Dataset()
    measures.SliceThickness = "0.001"
    measures.PixelSpacing = [str(microns / 1000), str(microns / 1000)]
    kind = Dataset()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.WholeSlideMicroscopyImageFrameTypeSequence = Sequence([kind])
    shared.OpticalPathIdentificationSequence = Sequence([path])
    return shared


def _describe_level(dataset: Dataset, identity: Identity, level: int) -> None:
    kind = "NONE" if level == 0 else "RESAMPLED"
    derived = "ORIGINAL" if level == 0 else "DERIVED"
    dataset.ImageType = [derived, "PRIMARY", "VOLUME", kind]
    dataset.FrameOfReferenceUID = UID(make_uid("frame", identity.key))
    dataset.PositionReferenceIndicator = "SLIDE_CORNER"
    dataset.AcquisitionDateTime = DATE + TIME
    dataset.AcquisitionDuration = 10.0
    dataset.ImagedVolumeWidth = WIDTH * MICRONS / 1000
    dataset.ImagedVolumeHeight = HEIGHT * MICRONS / 1000
    dataset.ImagedVolumeDepth = 1.0
    dataset.VolumetricProperties = "VOLUME"
    dataset.SpecimenLabelInImage = "NO"
    dataset.BurnedInAnnotation = "NO"
    dataset.FocusMethod = "AUTO"
    dataset.ExtendedDepthOfField = "NO"
    dataset.ContainerIdentifier = f"{identity.accession_number}-A1-1"
    dataset.IssuerOfTheContainerIdentifierSequence = Sequence([])
    dataset.ContainerTypeCodeSequence = Sequence([make_code("433466003", "Microscope slide")])
    dataset.SpecimenDescriptionSequence = Sequence([_make_specimen(identity)])
    dataset.AcquisitionContextSequence = Sequence([])
    dataset.OpticalPathSequence = Sequence([_make_optical_path()])
    dataset.NumberOfOpticalPaths = 1
    dataset.TotalPixelMatrixFocalPlanes = 1
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = "20"
    origin.YOffsetInSlideCoordinateSystem = "40"
    dataset.TotalPixelMatrixOriginSequence = Sequence([origin])
    dataset.ImageOrientationSlide = ["0", "-1", "0", "-1", "0", "0"]
    organization = Dataset()
    organization.DimensionOrganizationUID = UID(make_uid("dimensions", identity.key))
    dataset.DimensionOrganizationSequence = Sequence([organization])
    dataset.DimensionOrganizationType = "TILED_FULL"
    shared = _make_measures(MICRONS * 2**level)
    shared.WholeSlideMicroscopyImageFrameTypeSequence[0].FrameType = [derived, "PRIMARY", "VOLUME", kind]
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])


def _make_level(identity: Identity, level: int) -> bytes:
    dataset = identity.make_dataset(VLWholeSlideMicroscopyImageStorage, level + 1)
    dataset.SeriesDescription = "HE 20x"
    _describe_level(dataset, identity, level)
    width, height = WIDTH >> level, HEIGHT >> level
    across, down = -(-width // TILE), -(-height // TILE)
    frames = []
    for row in range(down):
        for column in range(across):
            x = (column * TILE / width, (column + 1) * TILE / width)
            y = (row * TILE / width, (row + 1) * TILE / width)
            frames.append(encode(paint(x, y, (TILE, TILE), seed=4)))
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = width, height
    dataset.NumberOfFrames = len(frames)
    dataset.Rows = dataset.Columns = TILE
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "01"
    raw, stored = TILE * TILE * 3 * len(frames), sum(map(len, frames))
    dataset.LossyImageCompressionRatio = f"{raw / stored:.2f}"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    return write_part10(dataset, JPEGBaseline8Bit)


def make_pyramid(identity: Identity) -> tuple[bytes, ...]:
    return tuple(_make_level(identity, level) for level in range(LEVELS))
