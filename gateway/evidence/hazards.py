"""The hazard log: what may go wrong for a patient, why, what is done against it, and the tests that prove it.
A test holds that each of these is there."""

from __future__ import annotations

from dataclasses import dataclass

from gateway import __version__
from gateway.evidence.page import write_page


@dataclass(frozen=True, slots=True)
class Hazard:
    """`left`: what remains for the hospital to look after."""

    what: str
    cause: str
    harm: str
    measure: str
    proofs: tuple[str, ...]  # file::test, below tests/
    left: str = ""


HAZARDS = (
    Hazard(
        "A result is shown for another patient",
        "a vendor mixes up studies; an accession number is used twice; archives disagree",
        "wrong diagnosis of two patients",
        "what both sides know of the patient has to agree before a byte leaves; each result is compared"
        " with its"
        " study, and held if it is another's or refers to another's",
        (
            "unit/test_agreement.py::test_a_difference_in_anything_that_both_know_holds_the_job",
            "rooms/test_lookup.py::test_a_study_that_an_archive_has_of_two_patients_is_held",
            "rooms/test_result_objects.py::test_a_result_for_somebody_else_never_leaves",
            "unit/test_whose_result.py::test_a_result_that_is_somebody_elses_by_any_name_is_held",
        ),
        "two patients who are one in the archive are one here",
    ),
    Hazard(
        "A result stands on another slide",
        "a stranger calls with a slide that isn't his; a vendor names another slide",
        "wrong diagnosis",
        "Sectra has to let the call's token in for this very slide; a vendor's right is of one slide",
        (
            "daemon/test_strangers.py::test_a_strangers_call_sends_nothing_and_is_held",
            "daemon/test_doors.py::test_a_slide_is_named_and_not_a_way_to_elsewhere",
        ),
    ),
    Hazard(
        "An analysis that was asked for never happens, and nobody knows",
        "a process or machine dies; the network breaks; a peer is away",
        "a finding comes late or never",
        "acknowledged only when committed; whatever dies, another goes on; what can't go on is held,"
        " said on the"
        " slide and alerted",
        (
            "faults/test_kill.py::test_a_kill_at_any_moment_loses_and_doubles_nothing",
            "faults/test_kill.py::test_a_job_that_was_only_accepted_is_not_lost",
            "faults/test_handover.py::test_a_pod_that_ends_hands_over_what_is_under_way_and_loses_and_doubles_nothing",
            "faults/test_machines.py::test_what_one_machine_took_another_works_on_though_the_first_is_gone",
            "db/test_alerts.py::test_held_jobs_are_told_each_by_why_and_by_what_helps",
        ),
        "somebody has to read the alerts",
    ),
    Hazard(
        "Studies stop coming, and the silence is taken for a quiet day",
        "a routing rule was changed in the PACS",
        "findings are missing for days",
        "an application may say how many it expects, in which hours; archives are compared with what"
        " was processed",
        ("db/test_silence.py::test_one_alarm_whoever_sees_it_and_an_arrival_clears_it",),
        "`expect` and `reconcile` have to be configured",
    ),
    Hazard(
        "Part of a study is analysed as if it were all",
        "images still arrive; a transfer breaks off",
        "a finding is overlooked",
        "a study has to be quiet (`settle`); what was promised, sent and acknowledged is counted, and a"
        " difference holds"
        " the job; cut instances aren't taken for whole",
        (
            "daemon/test_sectra.py::test_a_study_that_still_arrives_is_not_taken_for_complete",
            "rooms/test_dicomweb_archive.py::test_an_archive_killed_in_the_middle_of_a_study_is_no_success",
            "rooms/test_dicomweb_archive.py::test_an_instance_that_was_cut_off_is_not_passed_on_as_whole",
            "rooms/test_dimse_door.py::test_late_instances_bring_the_earlier_ones_along",
        ),
        "what a modality never sends, nobody here can miss",
    ),
    Hazard(
        "A broken or incomplete result is shown as a finding",
        "a vendor's answer is cut, nested without end or no DICOM",
        "wrong or missing finding",
        "asked for again, then held; nothing of it is delivered",
        (
            "daemon/test_bad_input.py::test_a_result_that_is_broken_is_asked_for_again_and_then_held",
            "rooms/test_bombs.py::test_a_result_nested_without_end_is_asked_for_again_and_no_more",
        ),
    ),
    Hazard(
        "A result is believed to be in the archive, and isn't",
        "an archive answers success and drops it, or keeps an older object of that UID",
        "the finding isn't there for the report",
        "read back, committed or listed before it counts as stored",
        ("rooms/test_archive_delivery.py::test_an_archive_that_encodes_anew_on_arrival_has_what_was_sent",),
    ),
    Hazard(
        "An old result covers a newer one, or a doctor's change",
        "jobs overtake each other; a user edits meanwhile",
        "an outdated finding is read",
        "each write names the version it replaces; a user's change is never covered by news of a job",
        (
            "db/test_on_the_slide.py::test_what_a_user_changed_too_late_covers_nothing",
            "db/test_on_the_slide.py::test_no_news_of_a_job_takes_the_place_of_its_result_but_its_last",
            "db/test_overruled.py::test_a_result_that_comes_after_a_cancel_is_dropped_and_the_log_says_so",
        ),
    ),
    Hazard(
        "A study is analysed twice",
        "a crash while sending; a backup is restored; another release runs beside this one",
        "two results that may differ; costs",
        "the vendor is asked what has arrived before anything is sent again",
        (
            "faults/test_kill.py::test_a_kill_in_the_middle_of_the_bytes",
            "faults/test_backup.py::test_what_was_sent_after_the_backup_is_not_sent_again",
            "faults/test_upgrade.py::test_both_share_the_work_until_the_last_of_the_release_before_ends",
        ),
    ),
    Hazard(
        "A vendor's software changes, and its results with it",
        "an update that nobody announced; another scanner",
        "more findings overlooked or invented",
        "the version of each result is kept and compared with the accepted one; shares of findings are"
        " watched for"
        " a shift; a test study is sent round",
        (
            "unit/test_drift.py::test_a_shift_is_flagged_within_seven_days",
            "daemon/test_canary.py::test_it_comes_back_unseen_and_is_missed_when_it_does_not",
        ),
        "whether a result is right, no gateway can tell",
    ),
    Hazard(
        "A test study is taken for a patient's",
        "the canary's images reach an archive",
        "confusion in the archive",
        "it is nobody's, and its results go nowhere",
        ("unit/test_canary_study.py::test_it_is_valid_and_nobodys",),
    ),
    Hazard(
        "Patients' data reach somebody who may not have them",
        "logs, error texts, a callback to a foreign address, a viewer's page",
        "privacy",
        "no identity in logs and errors; callbacks go to configured servers only; viewers are told"
        " nobody's identity;"
        " labels are withheld from vendors unless allowed",
        (
            "unit/test_logs.py::test_text_is_text_and_as_discreet",
            "daemon/test_bad_input.py::test_callbacks_go_to_configured_servers_only",
            "daemon/test_rest.py::test_a_viewer_learns_nobodys_identity_and_an_operators_look_is_written_down",
            "daemon/test_slide_rights.py::test_identifying_data_is_withheld_unless_allowed",
        ),
    ),
    Hazard(
        "A vendor that may not know the patient learns who he is, or its result comes back to another",
        "an attribute, a text or a picture that names him; a pseudonym that stands for nobody",
        "privacy; wrong diagnosis of two patients",
        "headers are rewritten as PS3.15 says and whatever can't be read is refused; pseudonyms are kept"
        " before anything leaves, and lead back to exactly one study",
        (
            "unit/test_rewriting.py::test_a_patient_is_somebody_and_nobody_knows_who",
            "unit/test_rewriting.py::test_whatever_is_broken_is_refused_and_never_passed",
            "unit/test_disguised_vendors.py::test_a_vendor_that_may_see_who_it_is_cannot_be_kept_in_the_dark",
            "daemon/test_deidentified.py::test_a_study_that_went_out_without_names_comes_back_to_its_patient",
        ),
        "only where `deidentify` names a profile; names in pixels leave unless the profile has `clean-pixel`",
    ),
    Hazard(
        "Somebody changes what was recorded",
        "an administrator of the database covers something up",
        "an incident can't be explained",
        "histories are chained, sealed, signed by a key that isn't in the database, and checked by"
        " `gateway jobs export --verify`",
        (
            "db/test_job_commands.py::test_verifying_tells_intact_tampered_and_unchecked_apart",
            "daemon/test_verified.py::test_histories_of_real_jobs_are_intact",
        ),
        "seals have to be kept elsewhere as well",
    ),
    Hazard(
        "The gateway stands still because its disk is full",
        "large studies; a peer that doesn't take results",
        "findings come late",
        "no new work begins below a watermark; it goes on by itself when there is room",
        ("faults/test_disk.py::test_work_waits_for_room_and_then_goes_on_by_itself",),
    ),
    Hazard(
        "A wrong change of the configuration stops the work",
        "a typing error",
        "findings come late",
        "a wrong configuration is refused whole, with its line, and the one before stays in force",
        ("daemon/test_reload.py::test_a_changed_configuration_is_in_force_or_refused",),
    ),
)


def write() -> str:
    return write_page("hazards.md", version=__version__, hazards=HAZARDS)
