"""pitr find on a laboratory incident: every real event with its tables, rows and xid, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pitr.core.events import silent
from pitr.find.engine import FindRequest, FindResult, find
from pitr.find.events import OPS, Event
from tests.support.cluster import MAJORS
from tests.support.incident import Incident, make

pytestmark = pytest.mark.pg
_EVERYDAY = [major for major in MAJORS if major in (15, 18)]
_OTHERS = [pytest.param(major, marks=pytest.mark.majors) for major in MAJORS if major not in (15, 18)]


@pytest.fixture(scope="module", params=[*_EVERYDAY, *_OTHERS])
def incident(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    made = make(tmp_path_factory.mktemp("incident"), request.param)
    yield made
    made.source.discard()


def found(incident: Incident, **options: object) -> FindResult:
    request = replace(FindRequest(cluster="shop", ops=OPS), **options)  # type: ignore[arg-type]
    return find(incident.source.repository, request, silent)


def shown(event: Event) -> tuple[object, ...]:
    tables = {table.shown: (table.deleted, table.updated, table.inserted) for table in event.tables}
    return event.op, event.database, tables


def test_every_event_is_named_and_nothing_else(incident: Incident) -> None:
    result = found(incident)
    events = [event for event in result.events if event.op != "restore-point"]
    missing = [one for one in incident.expected if (one.op, one.database, one.tables) not in list(map(shown, events))]
    assert missing == []
    assert [shown(event) for event in events] == [(one.op, one.database, one.tables) for one in incident.expected]
    for event, expected in zip(events, incident.expected, strict=True):
        assert expected.xid in (0, event.xid)
        assert event.is_certain
        assert event.restore is not None
    assert result.built == 0
