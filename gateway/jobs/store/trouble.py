"""Why PostgreSQL can't be worked with, in a sentence for whoever has to mend it. What the server says itself
is only recognised, never repeated: it names users, and may name more."""

from __future__ import annotations

import re

from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_CONNECTING = (
    (
        r"password authentication failed|no password supplied",
        "the database refuses our password; check the user and the password in database_url",
    ),
    (
        r'role "[^"]*" does not exist|(peer|ident|GSSAPI|SSPI|LDAP|RADIUS|PAM|certificate) authentication',
        "the database doesn't let our user in; check the user in database_url, and pg_hba.conf on the server",
    ),
    (
        r'database "[^"]*" does not exist|permission denied for database',
        "the server has no such database for us; check its name in database_url, or create it",
    ),
    (
        r"unsupported startup parameter",
        "a pooler stands before the database that refuses what we ask of it when we connect; set"
        " ignore_startup_parameters = options and pool_mode = session there, or name the server itself in"
        " database_url",
    ),
    (
        r"pg_hba\.conf",
        "the server lets nobody in from this machine as we come; check pg_hba.conf there, and sslmode in"
        " database_url",
    ),
    (
        r"failed to resolve host|could not translate host name|Name or service not known",
        "the host of the database isn't known; check its name in database_url, and the DNS of this machine",
    ),
    (r"certificate|SSL|TLS", "no TLS with the database; check sslmode and sslrootcert in database_url"),
    (r"starting up|shutting down|in recovery mode", "the database is just starting or stopping; ask again"),
    (
        r"too many clients|remaining connection slots|too many connections",
        "the server has no connection left for us; raise max_connections there, or end what uses them up",
    ),
    (
        r"Connection refused|No such file or directory",
        "no database runs where database_url says; check that the server runs, and its host and port",
    ),
    (
        r"timeout expired|timed out",
        "the database doesn't answer in time: its server hangs or is overloaded, or nothing gets through to"
        " it; look at that server first (its processes, its disk), then at its host and port, and what lies"
        " in between",
    ),
    (
        r"No route to host|Network is unreachable",
        "nothing leads to the host of the database; check the network and the firewall, and its host and"
        " port",
    ),
)
_WORKING = {
    "57014": "the database took too long over one question; it is overloaded, or somebody holds its tables",
    "42501": "our user may not use the tables; check who owns them",
    "42P01": "the tables aren't there; run gateway migrate first",
    "42703": "the tables are another release's; run gateway migrate first",
    "53100": "the disk of the database is full",
    "25006": "the database only lets us read: it is a standby; check the host in database_url",
}
_SILENT = "the database doesn't answer; check database_url and that the server runs"


def place_of(url: str) -> str:
    """Which database it is, and where: never who comes there, nor by which password."""
    known = {each.keyword.decode(): each.val.decode() for each in Conninfo.get_defaults() if each.val}
    known |= {name: str(value) for name, value in conninfo_to_dict(url).items()}
    host = known.get("host") or known.get("hostaddr", "")
    where = f" at {host} port {known['port']}" if host and not host.startswith("/") else ""
    if host.startswith("/"):
        where = f" of the socket in {host}"
    name = known.get("dbname") or known.get("user", "")
    return f"the database {name}{where}".replace("  ", " ")


def why(trouble: SQLAlchemyError) -> str:
    if isinstance(trouble, PoolTimeoutError):
        return "all our connections to the database are busy; ask again"
    cause = trouble.orig if isinstance(trouble, DBAPIError) else None
    state = getattr(cause, "sqlstate", None)
    if state in _WORKING:
        return _WORKING[state]
    if state is not None and not state.startswith(("08", "57", "28", "3D", "53")):
        return f"the database refused what was asked of it (SQLSTATE {state}); tell the gateway's developers"
    said = str(cause)
    return next((sentence for known, sentence in _CONNECTING if re.search(known, said)), _SILENT)
