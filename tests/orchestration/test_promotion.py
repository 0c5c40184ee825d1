"""Promotion and rollback: all that names a champion moves together, also when killed at any step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from click.testing import CliRunner

from assets.fraud import registry
from orchestration import deployment, promotion, traffic
from orchestration.cli import main
from orchestration.traffic import asked, change_traffic, current_plan
from switchyard.errors import PlanError, ReleaseError
from switchyard.learning.thresholds import Thresholds
from switchyard.serving.approval import approve
from switchyard.settings import Settings
from tests import promoting
from tests.homes import close, in_home, open_small
from tests.packing import pack
from tests.releases import make_release
from tests.senders import sending
from tests.served import make_body


@dataclass(frozen=True)
class Two:
    """A home with two releases, registered and packed, the first of which was promoted."""

    settings: Settings
    first: str
    second: str

    def decides(self) -> str:
        """The release that a client's decision names."""
        running = deployment.current(self.settings)
        assert running is not None
        body = make_body(f"t{next(_NUMBERS)}")
        answer = httpx.post(f"{running.url}/v1/predict", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        release: str = answer.json()["release"]
        return release

    def agree_on(self, release: str, bento: str | None = None) -> None:
        """Alias, plan, running Bento and the client's decision."""
        bento = bento or release
        assert promotion.agreement(self.settings) == {
            "alias": release, "plan": release, "bento_of_plan": bento, "bento": bento,
        }  # fmt: skip
        assert self.decides() == release
        assert not (self.settings.home / "promotion.json").exists()

    def services(self) -> int:
        """How many decision services run in this home."""
        return len(services_of(self.settings.home))


_NUMBERS = iter(range(1_000_000))


def services_of(home: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "serve" in command and any(part.startswith("fraud:") for part in command):
            try:
                if process.environ().get("SWITCHYARD_HOME") == str(home):
                    found.append(process.pid)
            except psutil.Error:
                continue
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Two]:
    settings = open_small(tmp_path_factory.mktemp("promoted") / "home", mlflow_database)
    with in_home(settings):
        ids = [pack(settings, Thresholds(0.3, block)) for block in (0.6, 0.7)]
        promotion.promote(settings, ids[0], who="a test", why="the first")
        yield Two(settings, *ids)
    close(settings)


def test_all_move_together(two: Two) -> None:
    two.agree_on(two.first)

    kept = last_record(two)
    assert (kept.champion, kept.who, kept.why) == (two.first, "a test", "the first")


def test_promoting_what_is_champion_already_changes_no_service(two: Two) -> None:
    before = deployment.named(two.settings)

    promotion.promote(two.settings, two.first, who="a test", why="again")

    assert deployment.named(two.settings) == before
    two.agree_on(two.first)


@pytest.mark.parametrize("step", ["start", "commit"])
def test_a_promotion_killed_before_it_is_committed_is_undone(two: Two, step: str) -> None:
    assert (
        promoting.run(two.settings, "promote", two.second, killed_before=step) == promoting.KILLED
    )
    assert two.decides() == two.first

    said = promotion.recover(two.settings)

    assert said is not None
    assert said.endswith("had not been ready when its process died, and was undone")
    two.agree_on(two.first)
    assert two.services() == 1


def test_a_promotion_killed_at_each_later_step_in_turn_is_completed(two: Two) -> None:
    first, *rest = promotion.STEPS[promotion.STEPS.index("switch") :]
    url = deployment.current(two.settings)

    assert (
        promoting.run(two.settings, "promote", two.second, killed_before=first) == promoting.KILLED
    )
    assert two.decides() == two.first
    for step in rest:
        assert promoting.run(two.settings, "recover", killed_before=step) == promoting.KILLED
        assert two.decides() == two.second
    said = promotion.recover(two.settings)

    assert said is not None
    assert said.endswith("had been under way when its process died, and was completed")
    two.agree_on(two.second)
    assert two.services() == 1
    now = deployment.current(two.settings)
    assert url is not None
    assert now is not None
    assert now.url == url.url
    assert previous_of(two) == two.first
    assert registry.release_of(two.settings.mlflow_tracking_uri, "previous") == two.first


@pytest.mark.parametrize("step", ["aliases", "record", "forget"])
def test_a_rollback_killed_once_the_plan_has_changed_is_completed(two: Two, step: str) -> None:
    service = deployment.named(two.settings)

    assert promoting.run(two.settings, "roll_back", killed_before=step) == promoting.KILLED
    assert two.decides() == two.first
    promotion.recover(two.settings)

    two.agree_on(two.first, bento=two.second)
    assert deployment.named(two.settings) == service
    promotion.promote(two.settings, two.second, who="a test", why="for the next rollback")
    two.agree_on(two.second)
    assert deployment.named(two.settings) == service


def test_a_rollback_killed_before_the_plan_has_changed_has_not_happened(two: Two) -> None:
    assert promoting.run(two.settings, "roll_back", killed_before="plan") == promoting.KILLED
    promotion.recover(two.settings)

    two.agree_on(two.second)


def test_aliases_and_record_follow_a_plan_that_was_changed_by_another_door(two: Two) -> None:
    change = asked({"action": "rollback", "who": "ann", "why": "it declines everybody"})
    change_traffic(two.settings, change)

    said = promotion.out_of_step(two.settings)
    promotion.recover(two.settings)

    assert said is not None
    assert promotion.out_of_step(two.settings) is None
    two.agree_on(two.first, bento=two.second)
    assert (last_record(two).who, last_record(two).why) == ("ann", "it declines everybody")


def test_a_rollback_that_the_workers_refuse_changes_nothing(two: Two) -> None:
    third = pack(two.settings, Thresholds(0.3, 0.8))
    damaged = two.settings.releases / two.first / "model" / "model.ubj"
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    promotion.promote(two.settings, third, who="a test", why="a third")

    with pytest.raises(ReleaseError, match=r"model\.ubj is damaged"):
        promotion.roll_back(two.settings, who="a test", why="it looks better")

    damaged.write_bytes(kept)
    two.agree_on(third)


def test_a_bento_is_carried_in_under_the_champion_that_decides(two: Two) -> None:
    before = current_plan(two.settings)
    assert before is not None

    promotion.carry(two.settings, two.second, who="a test", why="its columns are of its own code")

    two.agree_on(before.champion, bento=two.second)


AGAIN = {"action": "reload", "who": "ann", "why": "to collide"}


def asked_for_by_request(two: Two) -> httpx.Response:
    running = deployment.current(two.settings)
    assert running is not None
    return httpx.put(f"{running.url}/v1/traffic", json=AGAIN, timeout=10)


def test_a_change_of_the_plan_waits_for_a_promotion_and_is_made_of_what_that_left(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = two.second if two.decides() != two.second else two.first

    with ThreadPoolExecutor() as pool:
        with promoting.held(two.settings, "promote", other, before="plan"):
            waiting = pool.submit(change_traffic, two.settings, asked(AGAIN))
            refused = asked_for_by_request(two)
            with monkeypatch.context() as impatient:
                impatient.setattr(traffic, "TURN_S", 0.1)
                with pytest.raises(PlanError, match=r"under way for more than 0 s"):
                    change_traffic(two.settings, asked(AGAIN))
            assert not waiting.done()
        done = waiting.result()

    assert refused.status_code == 409
    assert "has been under way" in refused.json()["error"]["message"]
    assert (done.after.bento, done.after.champion, done.after.why) == (other, other, "to collide")
    two.agree_on(other)


def test_a_killed_promotion_keeps_nobody_waiting_and_comes_before_the_next_change(two: Two) -> None:
    champion = two.decides()
    other = two.second if champion != two.second else two.first
    promoting.run(two.settings, "promote", other, killed_before="commit")

    refused = asked_for_by_request(two)
    with pytest.raises(PlanError, match="left half-way"):
        change_traffic(two.settings, asked(AGAIN))
    result = CliRunner().invoke(main, ["reload", "--why", "to collide"])

    assert refused.status_code == 409
    assert "left half-way" in refused.json()["error"]["message"]
    assert result.exit_code == 0, result.output
    assert "was undone" in result.output
    plan = current_plan(two.settings)
    assert plan is not None
    assert (plan.bento, plan.champion, plan.why) == (champion, champion, "to collide")
    two.agree_on(champion)
    assert two.services() == 1


def test_a_release_is_deployed_by_a_request_and_no_other_request_is_lost(two: Two) -> None:
    running = deployment.current(two.settings)
    assert running is not None
    champion = two.decides()
    other = two.second if champion != two.second else two.first
    body = {"release": other, "by": "ann", "why": "it was asked for"}

    port = httpx.URL(running.url).port or 0
    with (
        httpx.Client(base_url=running.url, timeout=10) as client,
        sending(port, kept=4, fresh=1, pause_s=0.02) as sent,
    ):
        accepted = client.post("/v1/models/fraud/deploy", json=body)
        assert accepted.status_code == 202, accepted.text
        job = f"/v1/jobs/{accepted.json()['job_id']}"
        deadline = time.monotonic() + 60
        while (told := client.get(job).json())["status"] in ("queued", "running"):
            assert time.monotonic() < deadline, told
            time.sleep(0.1)

    assert (told["status"], told["error"], told["release"]) == ("done", None, other)
    assert sent.other == {}
    assert set(sent.releases) == {champion, other}
    two.agree_on(other)
    assert two.services() == 1
    kept = last_record(two)
    assert (kept.who, kept.why) == ("ann", "it was asked for")


def test_a_request_to_deploy_what_is_not_there_is_refused(two: Two) -> None:
    running = deployment.current(two.settings)
    assert running is not None
    body = {"release": "0" * 32, "by": "ann", "why": "it was asked for"}

    answer = httpx.post(f"{running.url}/v1/models/fraud/deploy", json=body)

    assert answer.status_code == 404
    assert answer.json()["error"]["field"] == "release"


def test_what_was_deployed_answers_again_after_down_and_up(two: Two) -> None:
    before = deployment.current(two.settings)
    assert before is not None

    assert promotion.down(two.settings)
    assert two.services() == 0
    assert deployment.current(two.settings) is None
    deployment.up(two.settings)

    two.agree_on(before.release)


def test_four_eyes_are_needed_where_the_setting_asks_for_them(two: Two) -> None:
    service = deployment.named(two.settings)
    assert service is not None
    champion = service.release
    careful = two.settings.model_copy(update={"four_eyes": True})

    with pytest.raises(PlanError, match="nobody has approved"):
        promotion.promote(careful, champion, who="ann", why="it is good")
    approve(careful, champion, who="ann", why="I made it")
    with pytest.raises(PlanError, match="ann alone has approved"):
        promotion.promote(careful, champion, who="ann", why="it is good")
    approve(careful, champion, who="bob", why="I looked at it")
    promotion.promote(careful, champion, who="ann", why="it is good")


def test_a_release_that_is_not_registered_is_refused(two: Two) -> None:
    stranger = make_release(two.settings.releases, thresholds=Thresholds(0.1, 0.2))

    with pytest.raises(ReleaseError, match="no version of the registered model"):
        promotion.promote(two.settings, stranger.id, who="a test", why="it is there")


def previous_of(two: Two) -> str | None:
    plan = current_plan(two.settings)
    return plan.previous if plan else None


def last_record(two: Two) -> promotion.Record:
    file = max((two.settings.home / "promotions").iterdir())
    return msgspec.json.decode(file.read_bytes(), type=promotion.Record)
