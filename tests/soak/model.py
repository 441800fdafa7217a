"""What must be so at the end, whatever happened: asked of the gateway, and of the peers themselves."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from gateway.simulate.patients import make_uid
from tests.peers.orthanc import Orthanc
from tests.soak.hospital import SECRETS, TOKENS, Hospital
from tests.soak.ledger import Asked, Ledger
from tests.soak.line import Exchange
from tests.soak.patients import FAMILY, number_of
from tests.soak.replica import HERE, gateways_of

ENDED = ("done", "failed", "cancelled")
KEPT_IN = {"click": "vna", "notification": "vna", "signed": "vna", "chest": "vna", "lungs": "vna"}
KEPT_IN |= {"rest": "vna", "pacs": "pacs", "cloud": "cloud", "c-store": "vna", "stow": "vna"}
TOLD = frozenset(("rest", "pacs", "cloud", "c-store", "stow"))  # these tell the RIS
AT_MILVUE = frozenset(("click", "notification", "signed", "rest", "pacs", "cloud", "c-store", "stow"))
GRACE_OF_A_CANCEL = 5.0
_SIGNS = re.compile(r"analysis( queued|:| failed| on hold| cancelled)")

Job = dict[str, Any]


@dataclass
class Verdict:
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def mind(self, what: str, about: object) -> None:
        self.violations.append(f"{what}: {about}")


class Model:
    def __init__(self, house: Hospital, ledger: Ledger) -> None:
        self._house = house
        self._ledger = ledger
        self.verdict = Verdict()
        self.jobs: list[Job] = []
        self._of: dict[int, list[Job]] = defaultdict(list)
        self.seen_by_viewer: list[str] = []

    async def check(self) -> Verdict:
        """While the gateway still runs."""
        await self._list_jobs()
        self._check_acknowledged()
        await self._check_vendors()
        await self._check_slides()
        await self._check_archives()
        self._check_ris()
        self._check_cancelled()
        await self._check_files()
        await self._check_connections()
        await self._check_chains()
        await self._check_secrets()
        return self.verdict

    # -- the gateway's own word -----------------------------------------------------------------------

    async def _list_jobs(self) -> None:
        cursor: str | None = None
        while True:
            page = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
            _, listed = await self._house.api("GET", "jobs", params=page)
            for job in listed["jobs"]:
                _, seen = await self._house.api("GET", f"jobs/{job['id']}", role="viewer")
                self.seen_by_viewer.append(json.dumps(seen, ensure_ascii=False))
                _, whole = await self._house.api("GET", f"jobs/{job['id']}")
                self.jobs.append(whole)
            cursor = listed["next_cursor"]
            if cursor is None:
                break
        for job in self.jobs:
            number = _number_of(job)
            if number is not None:
                self._of[number].append(job)
        self.verdict.counts["jobs"] = len(self.jobs)

    def _check_acknowledged(self) -> None:
        verdict, known = self.verdict, {job["id"] for job in self.jobs}
        for number, asked in self._ledger.asked.items():
            if asked.acknowledged is None:
                verdict.counts["never acknowledged"] += 1
                verdict.remarks.append(f"{_name(asked)} was never acknowledged: {asked.trouble}")
                continue
            verdict.counts["acknowledged"] += 1
            if not self._of[number] or (asked.job is not None and asked.job not in known):
                verdict.mind("an acknowledged job is lost", _name(asked))
            if asked.work.kind in TOLD - {"c-store", "stow"} and len(self._of[number]) > 1:
                verdict.mind("one order became several jobs", _name(asked))
        for job in self.jobs:
            state, error = job["state"], job["error"]
            verdict.counts[state] += 1
            if state == "failed":
                verdict.mind(
                    "a job failed though nothing was wrong with its study", f"{_about(job)}: {error}"
                )
            elif state == "held":
                if not (error and error["message"] and error["advice"]):
                    verdict.mind("a job is held without a reason", _about(job))
                else:
                    verdict.remarks.append(f"held: {_about(job)}: {error['message']}")
            elif state not in ENDED:
                waits = job["waits"] and job["waits"]["why"]
                last = f"{error and error['message']}; {waits}; next {job['next_at']}, try {job['attempt']}"
                verdict.mind("a job neither ended nor is held", f"{_about(job)} in {state}: {last}")
            if state == "done":
                self._check_done(job)

    def _check_done(self, job: Job) -> None:
        proof, number = job["proof"], _number_of(job)
        asked = None if number is None else self._ledger.asked.get(number)
        if asked is not None and asked.work.kind != "nuclei":
            counts = {proof["promised"], proof["sent"], proof["acknowledged"], asked.work.instances}
            if len(counts) != 1:
                self.verdict.mind("the counts of a finished job differ", f"{_about(job)}: {proof}")
        open_ones = [each["destination"] for each in job["deliveries"] if each["state"] != "done"]
        if open_ones:
            self.verdict.mind("a job is done without a delivery", f"{_about(job)}: {', '.join(open_ones)}")

    # -- the vendors ----------------------------------------------------------------------------------

    async def _check_vendors(self) -> None:
        state = await self._house.control("milvue", "GET", "state")
        carried = {name: self._carried(name) for name in ("milvue", "chest", "lungs")}
        for uid, count in state["arrivals"].items():
            self.verdict.counts["instances at Milvue"] += 1
            if count > 1:
                self._judge_twice("milvue", uid, carried["milvue"].get(uid, []))
        for name in ("chest", "lungs"):
            for uid, exchanges in carried[name].items():
                self.verdict.counts[f"instances at {name}"] += 1
                whole = [each for each in exchanges if not _broke_off(each)]
                if len(whole) > 1:
                    self._judge_twice(name, uid, exchanges)
        for number, jobs in self._of.items():
            asked = self._ledger.asked.get(number)
            if asked is None or not any(job["state"] == "done" for job in jobs):
                continue
            if asked.work.kind in AT_MILVUE:
                missing = [uid for uid in asked.patient.uids if uid not in state["arrivals"]]
                if missing:
                    self.verdict.mind("a job is done that Milvue never got whole", _name(asked))

    def _carried(self, name: str) -> dict[str, list[Exchange]]:
        found: dict[str, list[Exchange]] = defaultdict(list)
        for each in self._house.lines[name].journal:
            if "signed_url=true" not in each.head:
                for uid in each.carries:
                    found[uid].append(each)
        return found

    def _judge_twice(self, vendor: str, uid: str, exchanges: list[Exchange]) -> None:
        """Only after an answer was lost, and only after asking what had arrived."""
        number = number_of(uid)
        asked = self._ledger.asked.get(-1 if number is None else number)
        study = asked.patient.study if asked else ""
        jobs = self._of[asked.work.number] if asked else []
        journal = self._house.lines[vendor].journal
        for before, after in pairwise(exchanges):
            lost = before.lost or self._ledger.was_disturbed(
                before.at, (before.answered or before.ended or before.at) + 40, "replica", "database"
            )
            between = [
                each
                for each in journal
                if study in each.mentions and not each.carries and before.at < each.at < after.at
            ]
            what = f"{asked and _name(asked)} {uid}: {before.head!r} at {_clock(before.at)}"
            what += f", again at {_clock(after.at)} ({len(jobs)} jobs)"
            if len(jobs) > 1 and (not lost or is_anothers(jobs, before.at, after.at)):
                self.verdict.counts["sent again for another job"] += 1
            elif not lost:
                self.verdict.mind(f"{vendor} got an instance twice, and no answer had been lost", what)
            elif before.head.startswith("PUT "):  # to a place of its own, where it takes its own place
                self.verdict.counts["put again after a lost answer"] += 1
            elif not between:
                self.verdict.mind(f"{vendor} got an instance twice without being asked between", what)
            else:
                self.verdict.counts["sent again after a lost answer, having asked"] += 1

    # -- where results go -----------------------------------------------------------------------------

    async def _check_slides(self) -> None:
        by_slide: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for told in await self._house.control("sectra", "GET", "results"):
            by_slide[told["applicationId"], told["result"]["slideId"]].append(told["result"])
            self.verdict.counts["results on slides"] += 1
        for number, asked in self._ledger.asked.items():
            if not (asked.work.clicked or asked.work.kind == "notification"):
                continue
            results = by_slide.pop((asked.work.kind, asked.patient.slide), [])
            jobs = sorted(self._of[number], key=lambda job: str(job["created_at"]))
            if len(results) > 1:
                said = [each["displayResult"] for each in results]
                self.verdict.mind("several results on one slide", f"{_name(asked)}: {said}")
            if jobs and results:
                self._check_slide(asked, jobs[-1], results[-1])
            elif jobs and jobs[-1]["state"] == "done":
                self.verdict.mind("a job is done and its slide is empty", _name(asked))
        for place in by_slide:
            self.verdict.mind("a result on a slide that nobody asked about", place)

    def _check_slide(self, asked: Asked, job: Job, result: dict[str, Any]) -> None:
        said = str(result["displayResult"])
        is_sign = _SIGNS.match(said) is not None
        if job["state"] == "done" and is_sign:
            self.verdict.mind("a finished job's slide still shows a sign", f"{_name(asked)}: {said}")
        shown = _was_shown(job) or ("cancelled" in said and stood_before(job, self._changes_of(result["id"])))
        if job["state"] == "cancelled" and not is_sign and not shown:
            self.verdict.mind("a cancelled job's slide shows a result", f"{_name(asked)}: {said}")
        if job["state"] == "cancelled" and is_sign and "cancelled" not in said:
            self.verdict.mind("a cancelled job's slide says it goes on", f"{_name(asked)}: {said}")
        told = any(d["destination"] == "sectra" and d["state"] == "done" for d in job["deliveries"] or ())
        if job["state"] == "held" and is_sign and "hold" not in said and not told:
            self.verdict.mind("a held job's slide says that it goes on", f"{_name(asked)}: {said}")
        if job["state"] == "done":
            references = [d["reference"] for d in job["deliveries"] if d["destination"] == "sectra"]
            if references != [str(result["id"])]:
                self.verdict.mind(
                    "a slide shows another result than its job's", f"{_name(asked)}: {references}"
                )

    def _changes_of(self, result_id: int) -> list[float]:
        """When Sectra had changed that result."""
        changed = re.compile(rf"PUT \S+/results/{result_id} ")
        journal = self._house.lines["sectra"].journal
        return [each.answered for each in journal if each.answered is not None and changed.match(each.head)]

    async def _check_archives(self) -> None:
        kept: dict[str, dict[str, set[str]]] = {
            "vna": await self._contents(self._house.orthancs["vna"]),
            "pacs": await self._contents(self._house.orthancs["pacs"]),
            "cloud": defaultdict(set),
        }
        state = await self._house.control("cloud", "GET", "state")
        for study, series in state["studies"].items():
            for uids in series.values():
                kept["cloud"][study].update(uids)
        for number, asked in self._ledger.asked.items():
            place = KEPT_IN.get(asked.work.kind)
            if place is None:
                continue
            results = kept[place].get(asked.patient.study, set()) - set(asked.patient.uids)
            self.verdict.counts["results in archives"] += len(results)
            strange = results - _results_of(asked)
            if strange:
                self.verdict.mind(
                    "an archive has a result that isn't the study's", f"{_name(asked)} {strange}"
                )
            jobs = self._of[number]
            if any(job["state"] == "done" for job in jobs) and not results:
                self.verdict.mind("a job is done and the archive has no result", _name(asked))
            # One that was cancelled may have had its results on their way.
            began = any(event["state"] == "delivering" for job in jobs for event in job["events"])
            if results and not began:
                self.verdict.mind("an archive has results before any job had them", _name(asked))

    async def _contents(self, archive: Orthanc) -> dict[str, set[str]]:
        known: dict[str, dict[str, Any]] = {}
        auth = aiohttp.BasicAuth(*archive.auth) if archive.auth else None
        limit = aiohttp.ClientTimeout(total=600)
        for level in ("studies", "series", "instances"):
            url = f"{archive.url}/{level}?expand"
            async with self._house.http.get(url, auth=auth, timeout=limit) as answer:
                known |= {each["ID"]: each for each in await answer.json()}
        found: dict[str, set[str]] = defaultdict(set)
        for each in known.values():
            if "ParentSeries" in each:
                study = known[known[each["ParentSeries"]]["ParentStudy"]]["MainDicomTags"]
                found[study["StudyInstanceUID"]].add(each["MainDicomTags"]["SOPInstanceUID"])
        return found

    def _check_ris(self) -> None:
        told: dict[str, Counter[str]] = defaultdict(Counter)
        for message in self._house.ris.received:
            accession, patient = str(message.segment("OBR")[3]), str(message.segment("PID")[3])
            told[accession][str(message.segment("MSH")[10])] += 1
            self.verdict.counts["messages at the RIS"] += 1
            theirs = re.fullmatch(r"ZACCQ(\d{6})", accession)
            if theirs is None or f"ZPIDQ{theirs[1]}" not in patient:
                self.verdict.mind("a message is about another patient", accession)
        for number, asked in self._ledger.asked.items():
            if asked.work.kind not in TOLD:
                continue
            messages, jobs = told.pop(asked.patient.accession, Counter()), self._of[number]
            if len(messages) > max(1, len(jobs)):
                self.verdict.mind("several messages about one job", f"{_name(asked)}: {len(messages)}")
            if any(job["state"] == "done" for job in jobs) and not messages:
                self.verdict.mind("a job is done and the RIS knows nothing", _name(asked))
        for accession in told:
            self.verdict.mind("a message that nobody was to get", accession)

    def _check_cancelled(self) -> None:
        for number, asked in self._ledger.asked.items():
            if asked.cancelled is None:
                continue
            self.verdict.counts["cancels acknowledged"] += 1
            jobs = self._of[number]
            ended = [job for job in jobs if job["state"] == "cancelled"]
            for job in jobs:
                if job["state"] not in ENDED and _moment(job["created_at"]) < asked.cancelled - 1:
                    self.verdict.mind("a cancelled job goes on", f"{_about(job)} is {job['state']}")
            if not ended or len(jobs) > 1:
                continue
            from_when = asked.cancelled + GRACE_OF_A_CANCEL
            if self._ledger.was_disturbed(asked.cancelled - 45, from_when + 40, "replica", "database"):
                continue
            for line in self._house.lines.values():
                for each in line.journal:
                    if each.at > from_when and asked.patient.study in each.mentions and each.carries:
                        late = f"{each.at - asked.cancelled:.1f} s later: {each.head}"
                        self.verdict.mind(
                            "something was sent after a cancel", f"{_name(asked)} to {line.name} {late}"
                        )

    # -- what is left behind --------------------------------------------------------------------------

    async def _check_files(self) -> None:
        alive = {job["id"] for job in self.jobs if job["state"] not in ("done", "cancelled")}
        for _ in range(60):
            left = list(self._lying(alive))
            if not left:
                break
            await asyncio.sleep(1)
        for path in left:
            self.verdict.mind("a file is left behind", path)

    def _lying(self, alive: set[str]) -> Iterator[str]:
        root = self._house.data_dir
        for place in (root / "inbox/.filling", root / "incoming/.arriving"):
            yield from (str(each.relative_to(root)) for each in place.glob("*/*"))
            if len(list(place.glob("*"))) > 3 * len(self._house.replicas):  # each process holds two
                yield f"{place.relative_to(root)}: those of dead processes"
        studies = {_study_of(job) for job in self.jobs if job["id"] in alive}
        for name in ("spool", "inbox", "slides"):
            for entry in (root / name).iterdir() if (root / name).exists() else ():
                if not entry.name.startswith(".") and entry.name not in alive:
                    yield f"{name}/{entry.name}"
        for entry in (root / "incoming").glob("[!.]*/*"):
            study = entry.name.partition("@")[0]
            if study not in studies:
                yield str(entry.relative_to(root))

    async def _check_connections(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._house.database.ours, autocommit=True
        ) as connection:
            cursor = await connection.execute(
                "SELECT count(*) FILTER (WHERE true), count(*) FILTER (WHERE state LIKE 'idle in%%'"
                " AND now() - state_change > interval '10 s') FROM pg_stat_activity WHERE usename = 'gateway'"
            )
            row = await cursor.fetchone()
            assert row is not None
            self.verdict.counts["database connections"] = row[0]
            if row[1]:
                self.verdict.mind("transactions are left open", row[1])
        for replica in self._house.replicas:
            if not replica.is_running:
                self.verdict.mind("a replica is gone", replica.last_words)
                continue
            assert replica.process is not None
            process = Path(f"/proc/{replica.process.pid}")
            files = len(list((process / "fd").iterdir()))
            self.verdict.counts["open files of a replica"] = max(
                files, self.verdict.counts["open files of a replica"]
            )
            memory = re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())
            most = int(memory[1]) // 1024 if memory else 0
            self.verdict.counts["MiB of a replica"] = max(most, self.verdict.counts["MiB of a replica"])
            if files > 150:
                self.verdict.mind("a replica keeps files open", f"{replica.name}: {files}")

    async def check_stopped(self) -> None:
        """When the gateway has been told to stop."""
        for replica in self._house.replicas:
            for word in replica.exits:
                self.verdict.mind("a replica started or ended badly", word)
        await asyncio.sleep(1)
        async with await psycopg.AsyncConnection.connect(
            self._house.database.ours, autocommit=True
        ) as connection:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway'"
            )
            row = await cursor.fetchone()
            if row is not None and row[0]:
                self.verdict.mind("database connections outlive the gateway", row[0])
        for pid in gateways_of(self._house.folder):
            self.verdict.mind("a process outlives the gateway", pid)

    async def _check_chains(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "jobs", "export", "--verify"),
            *("--config", str(self._house.config)),
            cwd=HERE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode != 0:
            self.verdict.mind(
                "the chains aren't intact", f"exit code {process.returncode}: {said.decode()[-500:]}"
            )
        else:
            self.verdict.remarks.append(said.decode().strip().splitlines()[-1])

    async def _check_secrets(self) -> None:
        house = self._house
        firings = await house.control("sectra", "GET", "firings")
        tokens = {firing["token"] for firing in firings} | set(SECRETS) | {house.secret_key}
        patients = {each.patient for each in self._ledger.asked.values()}
        names = {FAMILY, "Qophtab"} | {patient.patient_id for patient in patients}
        accessions = {patient.accession for patient in patients}
        metrics = await self._metrics()
        for replica in house.replicas:
            for path in replica.logs:
                self._search(path.name, path.read_text(errors="replace"), tokens | names | accessions)
        self._search("the metrics", metrics, tokens | names | accessions)
        self._search("what was answered", "\n".join(self._ledger.refusals), tokens | names)
        self._search("what a viewer sees", "\n".join(self.seen_by_viewer), tokens | names | accessions)

    async def _metrics(self) -> str:
        told = []
        for replica in self._house.replicas:
            async with self._house.http.get(
                f"{replica.url}/metrics", headers={"Authorization": f"Bearer {TOKENS['viewer']}"}
            ) as answer:
                told.append(await answer.text())
        return "\n".join(told)

    def _search(self, where: str, text: str, secrets: set[str]) -> None:
        self.verdict.counts["bytes searched for secrets"] += len(text)
        for secret in sorted(secrets):
            place = text.find(secret)
            if place >= 0:
                shown = text[max(0, place - 120) : place + len(secret) + 40]
                self.verdict.mind(f"a secret or a name stands in {where}", repr(shown))


def _results_of(asked: Asked) -> set[str]:
    if asked.work.kind in ("chest", "lungs"):
        return {asked.patient.result_uid}
    kinds = ("capture", "report")
    return {make_uid("result", asked.patient.study, "smarturgences", kind) for kind in kinds}


def is_anothers(jobs: Sequence[Job], before: float, after: float) -> bool:
    """Whether all of one job's was confirmed after `before`, and another job's sending began only then."""
    confirmed = [(job["id"], at) for job in jobs for at in _moments(job, "the vendor has the study")]
    begun = [(job["id"], at) for job in jobs for at in _moments(job, "sending to the vendor")]
    return any(
        mine != other and before < ended < began < after
        for mine, ended in confirmed
        for other, began in begun
    )


def stood_before(job: Job, changes: Sequence[float]) -> bool:
    """Whether the last that the vendor stored itself stood on the slide before the job was cancelled; what is
    recorded of a call may come later than its end."""
    calls = [each for each in job["events"] if each["what"].startswith("the vendor called: ")]
    stored = [
        _moment(each["at"])
        for each in calls
        if each["what"].partition(": ")[2].startswith(("a new result", "a change of result"))
        and str(each["detail"].get("outcome")) in ("200", "201")
    ]
    [cancelled] = _moments(job, "cancelled") or [0.0]
    late = [at for at in stored if at > cancelled]
    if not late:
        return bool(stored)
    known = [_moment(each["at"]) for each in calls if _moment(each["at"]) <= cancelled]
    return len(late) == 1 and any(max(known, default=0.0) < at <= cancelled for at in changes)


def _moments(job: Job, what: str) -> list[float]:
    return [_moment(event["at"]) for event in job["events"] if event["what"] == what]


def _was_shown(job: Job) -> bool:
    return any(
        each["destination"] == "sectra" and (each["state"] == "done" or each["attempts"] > 0)
        for each in job["deliveries"] or ()
    )


def _broke_off(exchange: Exchange) -> bool:
    """Not even the peer's answer shows that it got all."""
    return exchange.answered is None


def _number_of(job: Job) -> int | None:
    if job["slide_id"] is not None:
        found = re.fullmatch(r"slide-(\d{6})", job["slide_id"])
        return None if found is None else int(found[1])
    return number_of(job["study"]["study_instance_uid"] or "")


def _study_of(job: Job) -> str:
    return str(job["study"]["study_instance_uid"])


def _about(job: Job) -> str:
    return f"{job['application']} {job['id']} ({job['slide_id'] or _study_of(job)})"


def _name(asked: Asked) -> str:
    return f"{asked.work.kind} {asked.work.number}"


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%H:%M:%S.%f}"[:-3]
