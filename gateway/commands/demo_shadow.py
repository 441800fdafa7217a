"""A vendor that a demo tries beside the one in use, and that doesn't agree with it in everything."""

from __future__ import annotations

from gateway.simulate.milvue import Behaviour, MilvueState
from gateway.simulate.patients import KNEE

TOLD = "a vendor that is tried beside Milvue on Quality"
NAME = "candidate"
ADAPTERS = "  candidate: {{kind: milvue, url: {milvue}, token: {milvue_token}, commands: [smarturgences]}}\n"


def candidate() -> MilvueState:
    return MilvueState(behaviours={"*": Behaviour(), KNEE.study_instance_uid: Behaviour(finds=[])})
