"""One small object of each kind that a study may hold, made on the spot, with the data of whom it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import highdicom
import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    TrackingIdentifier,
)
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from tests.peers.dicom_samples import encode

STORAGE: Final = "1.2.840.10008.5.1.4.1.1."


@dataclass(frozen=True)
class Somebody:
    """Who is planted, and `telling`, words of him as a text may have them."""

    name: str
    number: str
    telling: str
    other: str  # of somebody who isn't the patient
    label: str  # short, and of his: of a container, a plan


def source() -> Any:
    """An image with a place in space."""
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    return dcmread(path)


def item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def begun(sop_class: str, modality: str, **values: Any) -> Any:
    """The modules that all kinds have; `values` besides."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = UID(STORAGE + sop_class)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = generate_uid(), ""
    made.Modality, made.Manufacturer, made.SeriesNumber, made.InstanceNumber = modality, "Maker", 1, 1
    made.StudyDate = made.SeriesDate = made.ContentDate = "20240229"
    made.StudyTime = made.SeriesTime = made.ContentTime = "101112"
    made.PatientName, made.PatientID, made.PatientSex, made.PatientBirthDate = "", "", "O", ""
    made.AccessionNumber = made.StudyID = made.ReferringPhysicianName = ""
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _pixels(made: Any, *shape: int) -> Any:
    """Rows, columns and, if there are, frames of eight bits."""
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = shape[-2:]
    if len(shape) > 2:
        made.NumberOfFrames = shape[0]
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = np.arange(np.prod(shape), dtype=np.uint16).astype(np.uint8).tobytes()
    made["PixelData"].VR = "OB"
    return made


def _referring(whom: Any) -> list[Dataset]:
    return [item(ReferencedSOPClassUID=whom.SOPClassUID, ReferencedSOPInstanceUID=whom.SOPInstanceUID)]


def _plain(made: Dataset) -> Any:
    """As pydicom reads it, without what highdicom knows of it."""
    return dcmread(BytesIO(encode(made)))


def _content(kind: str, concept: Dataset, relation: str = "CONTAINS", **values: Any) -> Dataset:
    return item(RelationshipType=relation, ValueType=kind, ConceptNameCodeSequence=[concept], **values)


def _whoever(who: Somebody) -> dict[str, Any]:
    return {
        "series_instance_uid": generate_uid(),
        "series_number": 5,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": "Maker",
        "manufacturer_model_name": "Model",
        "software_versions": "1.0",
        "device_serial_number": who.label,
    }


def _algorithm() -> AlgorithmIdentification:
    return AlgorithmIdentification("finder", "1.0")


def report(who: Somebody) -> Any:
    """TID 1500, as a vendor's of findings, and with all that a human reporter adds."""
    evidence = source()
    observer = PersonObserverIdentifyingAttributes(
        who.other, login_name=who.label, organization_name=who.telling, role_in_organization=None
    )
    group = MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(generate_uid(), who.label), algorithm_id=_algorithm()
    )
    content = MeasurementReport(
        ObservationContext(observer_person_context=ObserverContext(codes.DCM.Person, observer)),
        CodedConcept("363679005", "SCT", "Imaging procedure"),
        [group],
    )
    made = _plain(Comprehensive3DSR([evidence], content[0], **_whoever(who), institution_name=who.telling))
    made.VerifyingObserverSequence = [
        item(
            VerifyingObserverName=who.other,
            VerifyingOrganization=who.telling,
            VerificationDateTime="20240229101112",
            VerifyingObserverIdentificationCodeSequence=[code("4711", "99LOCAL", who.telling)],
        )
    ]
    made.VerificationFlag, made.CompletionFlag = "VERIFIED", "COMPLETE"
    image = _content("IMAGE", code("121079", "DCM", "Baseline"), ReferencedSOPSequence=_referring(evidence))
    made.ContentSequence.extend(
        [
            _content("TEXT", code("121030", "DCM", "Subject ID"), "HAS OBS CONTEXT", TextValue=who.number),
            _content("PNAME", code("121029", "DCM", "Subject Name"), "HAS OBS CONTEXT", PersonName=who.name),
            _content("DATE", code("121031", "DCM", "Birth date"), "HAS OBS CONTEXT", Date="19370405"),
            _content("TEXT", code("121071", "DCM", "Finding"), TextValue=f"Seen: {who.telling}"),
            _content("TEXT", code("121071", "DCM", "Finding"), TextValue="A fracture of the ulna"),
            _content(
                "CONTAINER",
                code("121070", "DCM", "Findings"),
                ContinuityOfContent="SEPARATE",
                ContentSequence=[
                    image,
                    _content("UIDREF", code("121018", "DCM", "Order UID"), UID=generate_uid()),
                    _content("DATETIME", code("111526", "DCM", "Began"), DateTime="20240229101112"),
                ],
            ),
        ]
    )
    return made


def presentation(who: Somebody) -> Any:
    evidence = source()
    made = begun("11.1", "PR", ContentLabel="LABEL", ContentDescription=who.telling)
    made.ContentCreatorName, made.PresentationCreationDate = who.other, "20240229"
    made.PresentationCreationTime, made.PresentationLUTShape = "101112", "IDENTITY"
    made.ReferencedSeriesSequence = [
        item(SeriesInstanceUID=evidence.SeriesInstanceUID, ReferencedImageSequence=_referring(evidence))
    ]
    made.DisplayedAreaSelectionSequence = [
        item(
            DisplayedAreaTopLeftHandCorner=[1, 1],
            DisplayedAreaBottomRightHandCorner=[128, 128],
            PresentationSizeMode="SCALE TO FIT",
            PresentationPixelAspectRatio=[1, 1],
        )
    ]
    texts = [
        item(
            BoundingBoxAnnotationUnits="PIXEL",
            BoundingBoxTopLeftHandCorner=[1.0, 1.0],
            BoundingBoxBottomRightHandCorner=[9.0, 9.0],
            BoundingBoxTextHorizontalJustification="LEFT",
            UnformattedTextValue=text,
        )
        for text in (who.telling, "fracture")
    ]
    made.GraphicAnnotationSequence = [
        item(GraphicLayer="LAYER", TextObjectSequence=texts, ReferencedImageSequence=_referring(evidence))
    ]
    made.GraphicLayerSequence = [
        item(GraphicLayer="LAYER", GraphicLayerOrder=1, GraphicLayerDescription=who.telling)
    ]
    return made


def segmentation(who: Somebody) -> Any:
    evidence = source()
    mask = np.zeros((1, evidence.Rows, evidence.Columns), dtype=bool)
    mask[0, 10:20, 10:20] = True
    described = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=who.telling[:64],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            "finder", codes.DCM.ArtificialIntelligence, "1.0"
        ),
        tracking_uid=generate_uid(),
        tracking_id=who.label,
    )
    whole = highdicom.seg.Segmentation(
        source_images=[evidence],
        pixel_array=mask,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[described],
        content_creator_name=who.other,
        content_description=who.telling[:64],
        **_whoever(who),
    )
    made = _plain(whole)
    made.SegmentSequence[0].SegmentDescription = who.telling
    return made


def key_objects(who: Somebody) -> Any:
    evidence = source()
    content = highdicom.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=[evidence],
        description=who.telling,
    )
    given = _whoever(who)
    return _plain(
        highdicom.ko.KeyObjectSelectionDocument(
            [evidence], content, **{each: given[each] for each in _OF_KEY_OBJECTS}
        )
    )


_OF_KEY_OBJECTS: Final = (
    *("series_instance_uid", "series_number", "sop_instance_uid", "instance_number"),
    "manufacturer",
)


def structures(who: Somebody) -> Any:
    evidence = source()
    made = begun("481.3", "RTSTRUCT", StructureSetLabel=who.label, StructureSetName=who.telling)
    made.StructureSetDescription, made.ApprovalStatus = who.telling, "APPROVED"
    made.StructureSetDate, made.StructureSetTime = "20240229", "101112"
    made.ReviewDate, made.ReviewTime, made.ReviewerName = "20240229", "101112", who.other
    made.ReferencedFrameOfReferenceSequence = [
        item(
            FrameOfReferenceUID=evidence.FrameOfReferenceUID,
            RTReferencedStudySequence=[
                item(
                    ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
                    ReferencedSOPInstanceUID=evidence.StudyInstanceUID,
                    RTReferencedSeriesSequence=[
                        item(
                            SeriesInstanceUID=evidence.SeriesInstanceUID,
                            ContourImageSequence=_referring(evidence),
                        )
                    ],
                )
            ],
        )
    ]
    made.StructureSetROISequence = [
        item(
            ROINumber=1,
            ReferencedFrameOfReferenceUID=evidence.FrameOfReferenceUID,
            ROIName=who.telling,
            ROIDescription=who.telling,
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription=who.telling,
        )
    ]
    made.ROIContourSequence = [
        item(
            ReferencedROINumber=1,
            ContourSequence=[
                item(
                    ContourGeometricType="POINT",
                    NumberOfContourPoints=1,
                    ContourData=[1.5, 2.5, 3.5],
                    ContourImageSequence=_referring(evidence),
                )
            ],
        )
    ]
    made.RTROIObservationsSequence = [
        item(
            ObservationNumber=1,
            ReferencedROINumber=1,
            ROIObservationLabel=who.label,
            ROIObservationDescription=who.telling,
            RTROIInterpretedType="ORGAN",
            ROIInterpreter=who.other,
        )
    ]
    return made


def plan(who: Somebody) -> Any:
    made = begun("481.5", "RTPLAN", RTPlanLabel=who.label, RTPlanName=who.telling[:64])
    made.RTPlanDescription, made.RTPlanDate, made.RTPlanTime = who.telling, "20240229", "101112"
    made.RTPlanGeometry, made.ApprovalStatus, made.OperatorsName = "PATIENT", "APPROVED", who.other
    made.ReviewDate, made.ReviewTime, made.ReviewerName = "20240229", "101112", who.other
    made.PrescriptionDescription, made.TreatmentSites = who.telling, who.telling[:64]
    made.ReferencedStructureSetSequence = _referring(structures(who))
    made.PatientSetupSequence = [
        item(
            PatientSetupNumber=1,
            PatientPosition="HFS",
            SetupTechniqueDescription=who.telling,
            PatientAdditionalPosition=who.telling,
            FixationDeviceSequence=[
                item(FixationDeviceType="MASK", FixationDeviceLabel=who.label, FixationDeviceDescription="x")
            ],
        )
    ]
    made.BeamSequence = [
        item(
            BeamNumber=1,
            BeamName=who.label,
            BeamDescription=who.telling,
            TreatmentMachineName=who.label,
            InstitutionName=who.telling,
            DeviceSerialNumber=who.label,
            BeamType="STATIC",
            RadiationType="PHOTON",
            NumberOfControlPoints=0,
        )
    ]
    return made


def dose(who: Somebody) -> Any:
    made = begun("481.2", "RTDOSE", DoseUnits="GY", DoseType="PHYSICAL", DoseSummationType="PLAN")
    made.DoseComment, made.DoseGridScaling = who.telling, "0.1"
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.ReferencedRTPlanSequence = [1, 1], _referring(plan(who))
    made.GridFrameOffsetVector = [0, 1]
    return _pixels(made, 2, 8, 8)


def document(who: Somebody) -> Any:
    made = begun("104.1", "DOC", DocumentTitle=who.telling, BurnedInAnnotation="YES")
    made.MIMETypeOfEncapsulatedDocument, made.ConversionType = "application/pdf", "WSD"
    made.ConceptNameCodeSequence, made.AcquisitionDateTime = [], "20240229101112"
    made.EncapsulatedDocument = f"%PDF-1.4 {who.telling}".encode() + b" "
    return made


def ultrasound(who: Somebody) -> Any:
    made = begun("3.1", "US", ImageType=["ORIGINAL", "PRIMARY"], LossyImageCompression="00")
    made.FrameTime, made.FrameIncrementPointer = "33", 0x00181063
    made.ProtocolName, made.TransducerData = who.telling, who.telling
    made.SequenceOfUltrasoundRegions = [
        item(
            RegionSpatialFormat=1,
            RegionDataType=1,
            RegionFlags=0,
            RegionLocationMinX0=0,
            RegionLocationMinY0=0,
            RegionLocationMaxX1=7,
            RegionLocationMaxY1=7,
            PhysicalUnitsXDirection=3,
            PhysicalUnitsYDirection=3,
            PhysicalDeltaX=0.1,
            PhysicalDeltaY=0.1,
        )
    ]
    return _pixels(made, 3, 8, 8)


def capture(who: Somebody) -> Any:
    made = begun("7", "OT", ConversionType="WSD", BurnedInAnnotation="NO")
    made.SecondaryCaptureDeviceID, made.SecondaryCaptureDeviceManufacturer = who.label, who.telling[:64]
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = "20240229", "101112"
    return _pixels(made, 8, 8)


def slide(who: Somebody, flavour: str = "VOLUME") -> Any:
    made = begun("77.1.6", "SM", ImageType=["ORIGINAL", "PRIMARY", flavour, "NONE"])
    made.AcquisitionDateTime, made.ContainerIdentifier = "20240229101112", who.label
    made.IssuerOfTheContainerIdentifierSequence = [item(LocalNamespaceEntityID=who.label)]
    made.ContainerTypeCodeSequence = [code("433466003", "SCT", "Microscope slide")]
    preparation = [
        _content("TEXT", code("121041", "DCM", "Specimen Identifier"), TextValue=who.label),
        _content("TEXT", code("111700", "DCM", "Specimen Description"), TextValue=who.telling),
        _content("PNAME", code("121008", "DCM", "Person Observer Name"), PersonName=who.other),
    ]
    for content in preparation:
        del content.RelationshipType
    made.SpecimenDescriptionSequence = [
        item(
            SpecimenIdentifier=who.label,
            SpecimenUID=generate_uid(),
            IssuerOfTheSpecimenIdentifierSequence=[item(LocalNamespaceEntityID=who.label)],
            SpecimenShortDescription=who.telling[:64],
            SpecimenDetailedDescription=who.telling,
            SpecimenPreparationSequence=[item(SpecimenPreparationStepContentItemSequence=preparation)],
        )
    ]
    made.OpticalPathSequence = [
        item(
            OpticalPathIdentifier="0",
            OpticalPathDescription=who.telling,
            IlluminationTypeCodeSequence=[code("111744", "DCM", "Brightfield illumination")],
            IlluminationColorCodeSequence=[code("414298005", "SCT", "Full Spectrum")],
        )
    ]
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = 8, 16
    made.SpecimenLabelInImage = "YES" if flavour in ("LABEL", "OVERVIEW") else "NO"
    made.BurnedInAnnotation, made.VolumetricProperties = "NO", "VOLUME"
    made.DimensionOrganizationSequence = [item(DimensionOrganizationUID=generate_uid())]
    made.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=[0.001, 0.001], SliceThickness=0.001)],
            WholeSlideMicroscopyImageFrameTypeSequence=[item(FrameType=list(made.ImageType))],
            OpticalPathIdentificationSequence=[item(OpticalPathIdentifier="0")],
        )
    ]
    made.LabelText, made.BarcodeValue = who.telling, who.label
    return _pixels(made, 2, 8, 8)


def waveform(who: Somebody) -> Any:
    made = begun("9.1.1", "ECG", AcquisitionDateTime="20240229101112")
    made.AcquisitionContextSequence = []
    made.WaveformSequence = [
        item(
            MultiplexGroupLabel=who.label,
            WaveformOriginality="ORIGINAL",
            NumberOfWaveformChannels=1,
            NumberOfWaveformSamples=8,
            SamplingFrequency="500",
            WaveformBitsAllocated=16,
            WaveformSampleInterpretation="SS",
            WaveformData=bytes(16),
            ChannelDefinitionSequence=[
                item(
                    ChannelLabel=who.label,
                    ChannelSourceSequence=[code("2:1", "MDC", "Lead I")],
                    WaveformBitsStored=16,
                )
            ],
        )
    ]
    made.WaveformAnnotationSequence = [
        item(UnformattedTextValue=who.telling, AnnotationGroupNumber=1, ReferencedWaveformChannels=[1, 1])
    ]
    return made


def marks(who: Somebody) -> Any:
    """In bulk, of a slide."""
    made = begun("91.1", "ANN", ContentLabel="LABEL", ContentDescription=who.telling)
    made.ContentCreatorName, made.AnnotationCoordinateType = who.other, "2D"
    made.ReferencedSeriesSequence = [
        item(SeriesInstanceUID=generate_uid(), ReferencedInstanceSequence=_referring(slide(who)))
    ]
    made.ReferencedImageSequence = _referring(slide(who))
    made.AnnotationGroupSequence = [
        item(
            AnnotationGroupNumber=1,
            AnnotationGroupUID=generate_uid(),
            AnnotationGroupLabel=who.telling[:64],
            AnnotationGroupDescription=who.telling,
            AnnotationGroupGenerationType="AUTOMATIC",
            AnnotationPropertyCategoryCodeSequence=[code("91723000", "SCT", "Anatomical Structure")],
            AnnotationPropertyTypeCodeSequence=[code("4421005", "SCT", "Cell")],
            NumberOfAnnotations=1,
            AnnotationAppliesToAllOpticalPaths="YES",
            AnnotationAppliesToAllZPlanes="YES",
            GraphicType="POINT",
            PointCoordinatesData=np.asarray([1.0, 2.0], dtype="<f4").tobytes(),
        )
    ]
    return made


def bygone(who: Somebody) -> Any:
    """Of a retired class of ultrasound images, with a curve, an overlay and other retired attributes."""
    made = begun("6", "US", ImageType=["ORIGINAL", "PRIMARY"])
    for tag, vr, value in (
        (0x50000005, "US", 1),
        (0x50000010, "US", 4),
        (0x50000022, "LO", who.telling[:64]),
        (0x50000030, "SH", "MM"),
        (0x50003000, "OW", who.number.encode().ljust(16)),
        (0x60000010, "US", 8),
        (0x60000011, "US", 8),
        (0x60000022, "LO", who.telling[:64]),
        (0x60001500, "LO", who.telling[:64]),
        (0x60003000, "OW", who.number.encode().ljust(16)),
        (0x60004000, "LT", who.telling),
        (0x40000010, "LT", who.telling),
        (0x40004000, "LT", who.telling),
        (0x40080042, "LO", who.label),
        (0x4008010C, "PN", who.other),
        (0x4008010B, "ST", who.telling),
        (0x00321032, "PN", who.other),
        (0x00324000, "LT", who.telling),
        (0x00384000, "LT", who.telling),
        (0x00084000, "LT", who.telling),
        (0x00204000, "LT", who.telling),
        (0x00284000, "LT", who.telling),
    ):
        made.add(DataElement(Tag(tag), vr, value))
    return _pixels(made, 8, 8)


def private(who: Somebody) -> Any:
    """Makers' attributes within sequences within makers' attributes, and of groups that nobody reserved."""
    made = source()
    block = made.private_block(0x0029, "MAKER ONE", create=True)
    inner = item(PatientName=who.name, SeriesDescription=who.telling[:64])
    deeper = inner.private_block(0x0031, "MAKER TWO", create=True)
    deeper.add_new(0x10, "LO", who.telling[:64])
    deeper.add_new(0x11, "SQ", [item(PatientID=who.number, OtherPatientNames=who.other)])
    block.add_new(0x20, "SQ", [inner])
    block.add_new(0x21, "UN", who.telling.encode("utf-8"))
    made.ReferencedImageSequence = [item(ReferencedSOPInstanceUID=generate_uid())]
    nested = made.ReferencedImageSequence[0].private_block(0x0033, "MAKER THREE", create=True)
    nested.add_new(0x01, "PN", who.name)
    made.add(DataElement(Tag(0x00350001), "LO", who.telling[:64]))  # of no block
    return made


KINDS: Final[Mapping[str, Callable[[Somebody], Any]]] = {
    "report": report,
    "presentation": presentation,
    "segmentation": segmentation,
    "key objects": key_objects,
    "structures": structures,
    "plan": plan,
    "dose": dose,
    "ultrasound": ultrasound,
    "capture": capture,
    "slide": slide,
    "waveform": waveform,
    "marks": marks,
    "bygone": bygone,
    "private": private,
}
