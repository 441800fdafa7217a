"""How whoever writes an adapter, or tries one, makes a simulated vendor do what real ones do."""

from __future__ import annotations

MILVUE = """\
A Milvue (API v3) to write and try an adapter against. It takes studies, finds the same fracture in each, and
does whatever real ones were seen to do when it is told to. Every call but /control needs the header
x-goog-meta-owner with the token that it prints when it starts; else it answers 403.

What it answers

  POST /v3/studies?signed_url=false          all instances of one study, multipart/related; application/dicom
  POST /v3/studies?signed_url=true           their headers, pixels emptied: answers {signed_urls: {SOP: url}}
  PUT  (a signed url)                        one instance whole, with Content-Type: application/dicom,
                                             Content-Length and x-ms-blob-type: BlockBlob
  GET  /v3/studies/UID/status                running, done or error; 404 of a study that it doesn't know
  GET  /v3/studies/UID?inference_command=C   results: DICOM parts, or a JSON while there are none; with
                                             signed_url=true {signed_urls: [url]}, each fetched with the token
  GET  /v3/smarturgences/UID, /v3/smartxpert/UID       findings and measures in JSON
  POST /v3/interesting/UID
  Commands: smarturgences smartxpert detection measures trauma smartchest. Options are checked: an unknown
  one, or a value that there isn't, is 422. organizationId, siteId and analysisId are taken as they come.

What it is told

  PUT /control/behaviour {"study": "1.2.3", …}         of one study; without "study" of all others
    delay 0.5            seconds from the last byte until it is done
    outcome done         of all commands, or one of: running (for ever) · empty (an empty multipart) ·
                         empty-json · error · forbidden (not in the contract) · formatting-error (500) ·
                         quota (429) · bare (done, without a result) · unknown (404)
    outcomes {}          of single commands: {"smartxpert": "error", "trauma": "running"}
    storage own          whose urls are signed: google (the token is among its signed headers) or azure
    urls_hold null       seconds after which a signed url for an upload is refused (403): ask for new ones
    asks_anew false      who announces the rest of a study is asked for all of it
    gzip false · json_in_multipart false · report true           how results are dressed
    spoil null           not-dicom · cut · bomb · other-study · other-patient
  PUT /control/quota {"left": 3, "retry_after": 60}    takes so many studies, then 429; "left": null lifts it
  PUT /control/faults {"faults": [{…}]}                calls that go wrong, the first that fits is taken:
    method, path         patterns; skip 0 and times null: which of those calls
    status, headers, body · delay 0 · drop false (nothing done, connection closed) ·
    drop_answer false (all done, connection closed without an answer)
    One signed upload breaks: {"method": "PUT", "path": "/blob/", "skip": 2, "times": 1, "status": 503}
    A result's url has expired: {"method": "GET", "path": "/blob/", "times": 1, "status": 403}

What it tells

  GET /control/state     by study: posts (complete sendings), instances, missing, signings, interesting; by
                         instance how often its bytes arrived, and their sha256; most_uploads_at_once
  GET /control/log       every call: method, path, query, status

Try it

  gateway simulate milvue --port 9200
  curl -H 'x-goog-meta-owner: simulated-milvue-token' http://127.0.0.1:9200/v3/studies/1.2.3/status
  curl -X PUT -d '{"outcomes": {"smartxpert": "error"}}' http://127.0.0.1:9200/control/behaviour
"""
