"""Where the traffic plan is kept: a list in the online store, the newest plan last, and its mirror in the home.

The list is the history: each plan says who made it, when and why, and the one before it says from what. A
change goes to the store by compare-and-set, then to the mirror; while the store is away the mirror alone
takes it. Whoever looks brings the two together: the higher number is the newer one, of two equal ones the store's. Not
here: what a plan is (``plan``), how a worker follows it (``reload``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from switchyard.errors import PlanError, ReleaseError, StoreError
from switchyard.lake import write_text
from switchyard.lock import alone
from switchyard.serving.plan import Change, Plan, Step, first
from switchyard.serving.scripts import Script
from switchyard.serving.wire import Wire, command

MIRROR = "traffic.jsonl"
"""File of the home: one plan a line, as in the store."""
KEPT = 1_000
"""Plans that are kept, the newest ones."""
TRIES = 50
"""How often a change is tried anew on a plan that another host has changed meanwhile."""
STORE_S = 0.5

ADVANCE = Script(
    """
-- Plans KEYS[1], the newest last: add those from ARGV[3] on if the newest is ARGV[1] ('' for none), and keep
-- ARGV[2] of them. The newest as it then is.
local newest = redis.call('LINDEX', KEYS[1], -1) or ''
if newest ~= ARGV[1] then return newest end
for i = 3, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
return ARGV[#ARGV]
"""
)

Lines = list[bytes]
"""Plans as JSON, the oldest first."""

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Plan).decode


def plan_key(project: str) -> bytes:
    """Key of the list in the online store."""
    return f"{project}:traffic".encode()


def mirror_of(home: Path) -> Path:
    """The mirror of a home."""
    return home / MIRROR


def stamp_of(home: Path) -> int:
    """Changes with every writing of the mirror; 0 if there is none."""
    try:
        return mirror_of(home).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def move_of(home: Path) -> Path:
    """The file that is there while a promotion or rollback moves service and plan, or since its process died."""
    return home / "promotion.json"


def turn_of(home: Path) -> Path:
    """The file whose lock is held by whoever moves service and plan, or changes the plan alone."""
    return home / "promotion.lock"


@contextmanager
def between_moves(home: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Change the plan only while no promotion or rollback of this host is at it: neither would see the other's.

    Raises PlanError if one is for longer than ``wait_s``, or if a killed one has left something half-way.
    """
    with alone(turn_of(home), wait_s=wait_s) as free:
        if not free:
            waited = f" for more than {wait_s:.0f} s" if wait_s else ""
            raise PlanError(
                f"a promotion, a rollback or another change of the plan has been under way{waited}; look at the plan "
                "with `switchyard traffic show`, and try again when it has ended"
            )
        if move_of(home).exists():
            raise PlanError(
                "a promotion or rollback was left half-way by a process that was killed; the job 'finish_promotion' or "
                "the next `switchyard` command on its host completes or undoes it, then try again"
            )
        yield


def mirrored(home: Path) -> Plan | None:
    """The newest plan of the mirror, None if there is none. Raises ReleaseError if it can't be read."""
    lines = _read(home)
    return _plan(lines[-1], mirror_of(home)) if lines else None


def decides(home: Path, bento: str) -> str:
    """The release that decides in a Bento by the mirror. Raises ReleaseError if it can't be read."""
    plan = mirrored(home)
    return plan.champion if plan and plan.bento == bento else bento


class Traffic:
    """The plans of a home and of the project's part of the online store at ``url``; connects on first use.

    Safe for several processes and threads. A store that does not answer within STORE_S is done without.
    """

    def __init__(self, home: Path, url: str, project: str) -> None:
        self.home = home
        self._key = plan_key(project)
        self._wire = Wire(url, (ADVANCE.source,), STORE_S)

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    def current(self) -> Plan | None:
        """The plan that holds, None before the first one; store and mirror agree on it afterwards.

        Raises ReleaseError if neither can be read as plans.
        """
        with self._alone():
            lines = self._settled()
        return _plan(lines[-1], mirror_of(self.home)) if lines else None

    def history(self) -> list[Plan]:
        """The plans that are kept, the oldest first. Raises as ``current`` does."""
        with self._alone():
            return [_plan(line, mirror_of(self.home)) for line in self._settled()]

    def change(
        self, bento: str, step: Step, *, who: str, why: str, now: datetime
    ) -> tuple[Plan, Plan]:
        """Make ``step``; the plans before and after it, twice the same where it changes nothing of a plan.

        ``bento`` is the Bento that answers: a plan for another one counts as none. Raises PlanError if the
        step can't be made, or other hosts change the plan all the time.
        """
        with self._alone():
            for _ in range(TRIES):
                lines = self._settled()
                before = self._base(lines, bento)
                after = step(before)
                if after == before and _is_for(lines, bento):
                    return before, after
                after = _told(after, before.number + 1, who, why, now)
                if self._advance(lines, _encode(after)):
                    return before, after
        raise PlanError(f"the plan was changed by others {TRIES} times meanwhile; try again")

    def _base(self, lines: Lines, bento: str) -> Plan:
        """The plan that a change begins with; numbers go on growing also under another Bento."""
        if not lines:
            return first(bento)
        newest = _plan(lines[-1], mirror_of(self.home))
        if newest.bento == bento:
            return newest
        return msgspec.structs.replace(first(bento), number=newest.number)

    def _advance(self, lines: Lines, new: bytes) -> bool:
        """Add a plan to both places; False if the store has another newest one."""
        try:
            if self._add(lines[-1] if lines else b"", [new]) != new:
                return False
        except StoreError as error:
            _log.warning("the plan is changed in %s alone: %s", mirror_of(self.home), error)
        self._mirror([*lines, new])
        return True

    def _settled(self) -> Lines:
        """What both places hold afterwards; the mirror's plans where the store does not answer."""
        try:
            stored = self._stored()
        except StoreError as error:
            _log.warning("the plan is read from %s alone: %s", mirror_of(self.home), error)
            return _read(self.home)
        mirror = self._mirrored(stored)
        newest = stored[-1] if stored else b""
        if ahead := [line for line in mirror if _number(line) > _number(newest)]:
            self._fill(newest, ahead)
        settled = [*stored, *ahead][-KEPT:]
        if settled != mirror:
            self._mirror(settled)
        return settled

    def _fill(self, newest: bytes, lines: Lines) -> None:
        """Bring to the store what it lacks: it is new, or was away."""
        try:
            self._add(newest, lines)
        except StoreError as error:
            _log.warning("the plan stays in %s alone: %s", mirror_of(self.home), error)

    def _mirrored(self, stored: Lines) -> Lines:
        """The mirror's plans; a damaged one has none if the store has some."""
        try:
            return _read(self.home)
        except ReleaseError as error:
            if not stored:
                raise
            _log.warning("%s", error)
            return []

    def _stored(self) -> Lines:
        (answer,) = self._wire.ask(command(b"LRANGE", self._key, b"0", b"-1"), 1)
        if not isinstance(answer, list) or not all(isinstance(line, bytes) for line in answer):
            raise StoreError(f"the online store has no plans under {self._key!r}: {answer!r:.100}")
        return answer

    def _add(self, newest: bytes, lines: Lines) -> object:
        (answer,) = self._wire.ask(ADVANCE.call(self._key, newest, b"%d" % KEPT, *lines), 1)
        if isinstance(answer, Exception):
            raise StoreError(f"the online store refused a plan: {answer}")
        return answer

    def _mirror(self, lines: Sequence[bytes]) -> None:
        text = b"\n".join(lines[-KEPT:]) + b"\n"
        write_text(text.decode(), mirror_of(self.home))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of the host at a time."""
        with alone(self.home / "traffic.lock"):
            yield


def change_plan(
    traffic: Traffic,
    bento: str,
    change: Change,
    *,
    now: datetime,
    check: Callable[[str], object] = lambda _release: None,
    may_decide: Callable[[str, str], object] = lambda _release, _who: None,
) -> tuple[Plan, Plan]:
    """What every door to the plan calls, between moves: command line, HTTP and jobs. The plans before and after.

    ``check`` raises ReleaseError for a release that can't be served; it is asked of each that the plan names
    anew, but for the Bento's own. ``may_decide`` raises PlanError for a release that is to decide if that
    person may not have it so. Raises PlanError if the change can't be made.
    """

    def step(plan: Plan) -> Plan:
        after = change.step(plan)
        for release in (after.champion, after.challenger):
            if release not in (None, bento, plan.champion, plan.previous, plan.challenger):
                check(release)
        if after.champion not in (plan.champion, plan.previous):
            may_decide(after.champion, change.who)
        return after

    return traffic.change(bento, step, who=change.who, why=change.why, now=now)


def _is_for(lines: Lines, bento: str) -> bool:
    """Whether there is a plan and the newest one is for that Bento."""
    return bool(lines) and _decode(lines[-1]).bento == bento


def _told(plan: Plan, number: int, who: str, why: str, now: datetime) -> Plan:
    """The plan with what its step did not say. Raises PlanError if a plan can't be like that."""
    told = msgspec.structs.replace(plan, number=number, who=who, when=now, why=why)
    try:
        return _decode(_encode(told))
    except msgspec.ValidationError as error:
        raise PlanError(f"there is no such plan: {error}") from None


def _number(line: bytes) -> int:
    return msgspec.json.decode(line, type=_Numbered).number if line else 0


class _Numbered(msgspec.Struct):
    number: int


def _read(home: Path) -> Lines:
    """The mirror's lines, each a plan. Raises ReleaseError."""
    place = mirror_of(home)
    try:
        lines = place.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReleaseError(f"{place} can't be read: {error}") from None
    for line in lines[-1:]:
        _plan(line, place)
    if not lines:
        raise ReleaseError(_DAMAGED.format(place=place, error="it is empty"))
    return lines


def _plan(line: bytes, place: Path) -> Plan:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReleaseError(_DAMAGED.format(place=place, error=error)) from None


_DAMAGED = (
    "{place} can't be read as traffic plans: {error}; remove it, and it is written anew from the online "
    "store or with the next `switchyard traffic promote RELEASE`"
)
