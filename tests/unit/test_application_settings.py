"""What an application may say: its shadows, its rules by result, its profile."""

from __future__ import annotations

import pytest

from gateway.settings.load import load
from gateway.settings.shadows import application_named
from tests.unit.configured import ENVIRONMENT, WHOLE, problems

SHADOWED = (
    WHOLE.replace("settle: 10s", "shadow: [SHADOW]").replace(
        "departments:",
        """  other: {kind: milvue, url: "https://other.example", token: t, commands: [smarturgences]}
  busy: {kind: milvue, url: "https://busy.example", token: t, commands: [smarturgences], max_concurrent: 1}
departments:""",
    )
    + """\
      chest: {display_name: Chest, adapter: busy, archives: [vna], deidentify: research}
      deep: {display_name: Deep, adapter: other, archives: [vna], shadow: [milvue]}
      busy: {display_name: Busy, adapter: other, archives: [vna]}
      plain: {display_name: Plain, adapter: other, archives: [vna]}
profiles: {research: {}}
"""
)


@pytest.mark.parametrize(
    ("shadow", "sentence"),
    [
        ("nobody", "no application or adapter nobody; allowed: busy, chest, deep, other, plain"),
        ("milvue-trauma", "an application is no shadow of itself"),
        ("milvue", "adapters.milvue gets these studies already; choose another vendor"),
        ("deep", "deep has shadows itself, and there is no shadow of a shadow; take those out"),
        ("busy", "busy is an application, and an adapter that isn't its own; give one of both another name"),
        (
            "chest",
            "adapters.busy takes one at a time, and a shadow takes nobody's place: raise max_concurrent",
        ),
        ("other, other", "other is named twice"),
    ],
)
def test_a_shadow_that_cannot_be_is_named_with_its_line(write, shadow, sentence):
    [told] = problems(write(SHADOWED.replace("SHADOW", shadow)))
    assert (
        told == f"gateway.yaml line 33: departments.emergency.applications.milvue-trauma.shadow: {sentence}"
    )


@pytest.mark.parametrize(
    ("archives", "sentence"),
    [
        ("[slides]", "a shadow gets its studies from an archive of the application: name one under archives"),
        (
            "[slow]",
            "archives.slow gives one study at a time, and a shadow takes nobody's place: raise its rate",
        ),
    ],
)
def test_a_shadow_needs_an_archive_that_has_places_to_spare(write, archives, sentence):
    text = SHADOWED.replace("SHADOW", "other").replace("archives: [vna]", f"archives: {archives}", 1)
    more = "  slides: {kind: sectra}\n  slow: {kind: dicomweb, url: https://slow, rate: 1/min}\ndestinations:"
    [told] = problems(write(text.replace("destinations:", more, 1)))
    assert told.endswith(f"shadow: {sentence}")


def test_what_a_shadow_gets_is_its_own_and_nothing_follows_from_it(write):
    text = SHADOWED.replace("SHADOW", "plain, other").replace("Plain,", "Plain, deidentify: research, ")
    settings = load(write(text), ENVIRONMENT)
    by_application = application_named(settings, "shadow/milvue-trauma/plain")
    by_adapter = application_named(settings, "shadow/milvue-trauma/other")
    assert by_application is not None and by_adapter is not None
    assert (by_application.adapter, by_application.deidentify) == ("other", "research")
    assert (by_adapter.adapter, by_adapter.deidentify) == ("other", False)
    assert by_adapter.accept.modalities == ["CR", "DX"]
    for each in (by_application, by_adapter):
        assert (each.archives, each.deliver, each.shadow, each.register_) == (["vna"], [], [], None)
    assert application_named(settings, "shadow/milvue-trauma/chest") is None
    tried = application_named(settings, "trial/milvue-trauma/busy")
    assert tried is not None and (tried.adapter, tried.deliver) == ("busy", [])


def ruled(rule: str, more: str = "") -> str:
    return WHOLE.replace("settle: 10s", f"when: [{{{rule}}}]") + more


HOOK = 'alerts: {webhook: {url: "https://chat.hospital/hook"}}\n'


@pytest.mark.parametrize(
    ("rule", "place", "sentence"),
    [
        ("deliver: [ris]", "0.deliver", "no destination ris; allowed: sectra, vna"),
        ("notify: surgery", "0.notify", "no department surgery; allowed: emergency"),
        ('score: "~0.8", priority: 9', "0.score", "there is no operator ~; allowed: >, >=, <, <=, ="),
        ("score: 0.8, priority: 9", "0.score", 'a score is written in quotes, like ">0.8" or "<= 0.5"'),
        ("priority: 10", "0.priority", "less than or equal to 9"),
        ('score: ">0.8"', "0", "nothing follows from it: name deliver, priority or notify"),
    ],
)
def test_a_rule_by_result_that_leads_nowhere_is_named_with_its_line(write, rule, place, sentence):
    [told] = problems(write(ruled(f"finding: fracture, {rule}", HOOK)))
    assert told.startswith(
        f"gateway.yaml line 31: departments.emergency.applications.milvue-trauma.when.{place}"
    )
    assert sentence in told


EMAIL = "alerts: {email: {host: mail.hospital, from: gw@hospital, to: [it@hospital]}}\n"


@pytest.mark.parametrize(
    ("more", "contact", "told"),
    [
        ("", "radiology-it@hospital", "configure alerts.email or alerts.webhook"),
        (EMAIL, "room 7", "departments.emergency.contact is no e-mail address"),
        (EMAIL, "radiology-it@hospital", None),
        (HOOK, "room 7", None),
    ],
)
def test_whom_a_rule_by_result_tells_has_to_hear_of_it(write, more, contact, told):
    path = write(
        ruled("finding: fracture, notify: emergency", more).replace("radiology-it@hospital", contact)
    )
    if told is None:
        assert load(path, ENVIRONMENT)
    else:
        [said] = problems(path)
        assert said.endswith(f"when.0.notify: emergency wouldn't hear of it: {told}")


PROFILES = WHOLE.replace("settle: 10s", "deidentify: research") + "profiles:\n  research: {}\n"


def test_an_application_names_the_profile_by_which_its_studies_leave(write):
    settings = load(write(PROFILES), ENVIRONMENT)
    named = settings.applications["milvue-trauma"].deidentify
    assert named == "research" and settings.profiles[named].base == "basic"


def test_a_profile_that_is_not_there_is_named(write):
    told = problems(write(PROFILES.replace("  research: {}", "  other: {}\n  trial: {}")))
    assert (
        "gateway.yaml line 31: departments.emergency.applications.milvue-trauma.deidentify:"
        " no profile research; allowed: other, trial"
    ) in told


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ("{options: [retain-safe-private]}", "retain-safe-private needs keep_private"),
        ("{keep_private: ['(0019,\"A\",0C)']}", "keep_private needs the option retain-safe-private"),
        ("{options: [retain-safe-private], keep_private: ['(0018,\"A\",0C)']}", "is written like (0019,"),
        (
            "{options: [retain-longitudinal-full-dates, retain-longitudinal-modified-dates]}",
            "choose one of the two",
        ),
        ("{options: [retain-names]}", "retain-longitudinal-full-dates"),
        ("{base: none}", "basic"),
    ],
)
def test_what_a_profile_may_not_say(write, profile, sentence):
    told = problems(write(PROFILES.replace("research: {}", f"research: {profile}")))
    assert any("line 35" in said and "profiles.research" in said and sentence in said for said in told), told
