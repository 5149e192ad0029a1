"""The pages of a study without a browser: who is let in, what is sent when, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database
from erv.study.answers.state import state_of
from erv.study.contents import Texts
from erv.study.pages.app import MOST_BYTES, application
from erv.study.pages.visit import cookie_of, words
from erv.study.plan import Study, read_study
from erv.web.run import LOOPBACK, hosts_of
from erv.web.site import site
from tests.support.small_study import plan, write_small_study

BASE = "http://127.0.0.1"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write_small_study(tmp_path / "small"))


@pytest.fixture
def database(study: Study, tmp_path: Path) -> Iterator[Database]:
    base = Answerbase(f"sqlite:///{tmp_path / 'answers.db'}")
    yield Database(base, study)
    base.close()


@pytest.fixture
def client(study: Study, database: Database) -> TestClient:
    app = site(application(study, database), hosts=hosts_of(LOOPBACK), most_bytes=MOST_BYTES)
    return TestClient(app, base_url=BASE, headers={"accept": "text/html"})


@pytest.fixture
def inside(client: TestClient, database: Database) -> TestClient:
    (invitation,) = database.invite()
    response = client.post(
        "/enter", data={"token": invitation.token, "language": "en"}, follow_redirects=False
    )
    assert (response.status_code, response.headers["location"]) == (303, "/instructions")
    return client


def test_a_link_shows_the_consent_and_takes_no_seat(client: TestClient, database: Database) -> None:
    (invitation,) = database.invite()
    response = client.get("/enter", params={"token": invitation.token, "PROLIFIC_PID": "p1"})
    assert "You may stop at any time." in response.text
    assert f'value="{invitation.token}"' in response.text
    assert 'name="participant" value="p1"' in response.text
    assert "set-cookie" not in response.headers
    assert database.enter(invitation.token).slot == "r001"


def test_the_session_is_a_cookie_that_no_script_reads(
    study: Study, database: Database, client: TestClient
) -> None:
    data = {"token": database.invite()[0].token, "language": "en"}
    header = client.post("/enter", data=data, follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in header
    assert "SameSite=lax" in header
    assert "Secure" not in header
    assert data["token"] not in header
    app = site(application(study, database, https=True), hosts=hosts_of(LOOPBACK), most_bytes=MOST_BYTES)
    response = TestClient(app, base_url=BASE).post("/enter", data=data, follow_redirects=False)
    assert "Secure" in response.headers["set-cookie"]


def test_who_has_no_session_sees_nothing(client: TestClient) -> None:
    for path in ("/", "/instructions", "/clips/clip0"):
        response = client.get(path)
        assert response.status_code == 401
        assert "open the study from its link again" in response.text


def test_an_invitation_that_is_none_is_refused(client: TestClient, database: Database) -> None:
    response = client.post("/enter", data={"token": "x" * 32, "language": "en"})
    assert (response.status_code, "set-cookie" in response.headers) == (403, False)
    assert "This invitation is not valid" in response.text
    data = {"token": database.invite()[0].token, "language": "fr"}
    assert client.post("/enter", data=data).status_code == 400


def test_a_full_study_says_so(client: TestClient, database: Database) -> None:
    for invitation in database.invite(2):
        database.enter(invitation.token)
    response = client.post("/enter", data={"token": database.invite()[0].token, "language": "en"})
    assert response.status_code == 409
    assert "All places of this study are taken" in response.text


def test_explanations_come_only_after_the_emotion(inside: TestClient, study: Study) -> None:
    first = inside.get("/").text
    assert "practice." in first
    assert not any(said.code in first for said in study.item("item0").explanations)
    assert "What AAAA says" not in first
    assert (
        inside.post("/emotion", data={"item": "item0", "emotion": "anger", "seconds": "2.5"}).status_code
        == 204
    )
    second = inside.get("/").text
    assert second.index("What AAAA says of clip0.") < second.index("What BBBB says of clip0.")
    again = inside.post("/emotion", data={"item": "item0", "emotion": "sadness", "seconds": "1"})
    assert again.status_code == 204
    assert "chosen." in inside.get("/").text


def test_the_answer_has_the_first_emotion_and_all_the_time(inside: TestClient, database: Database) -> None:
    for emotion in ("anger", "sadness"):
        inside.post("/emotion", data={"item": "item0", "emotion": emotion, "seconds": "2.5"})
    data = {"item": "item0", "preferred": "tie", "seconds": "1.25", "key": "key-number-1"}
    assert inside.post("/answer", data=data).status_code == 204
    assert inside.post("/answer", data=data).status_code == 204  # a resend
    (row,) = database.log()
    assert (row["value"], row["shown_ms"]) == ('{"emotion": "anger", "preferred": "tie"}', 3750)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"preferred": "ZZZZ"}, 400),
        ({"preferred": "", "rating_true": "3"}, 400),
        ({"seconds": "nan"}, 400),
        ({"seconds": "-1"}, 400),
        ({"key": "short"}, 400),
        ({"item": "item1"}, 409),  # not looked at yet
        ({"item": "none"}, 409),
        ({"more": "1"}, 400),
        ({"seconds": "soon"}, 400),
    ],
)
def test_an_answer_that_does_not_fit_is_not_kept(
    inside: TestClient, database: Database, changes: dict[str, str], status: int
) -> None:
    inside.post("/emotion", data={"item": "item0", "emotion": "anger", "seconds": "1"})
    data = {"item": "item0", "preferred": "AAAA", "seconds": "1", "key": "key-number-1"} | changes
    response = inside.post("/answer", data=data, headers={"accept": "application/json"})
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert database.log() == []


def test_no_item_is_looked_at_before_its_turn(inside: TestClient) -> None:
    response = inside.post(
        "/emotion",
        data={"item": "item1", "emotion": "anger", "seconds": "1"},
        headers={"accept": "application/json"},
    )
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "stale"


def do(client: TestClient, item: str, number: int) -> None:
    client.post("/emotion", data={"item": item, "emotion": "anger", "seconds": "1"})
    said = {"preferred": "tie"}
    if item in ("item3", "item5"):
        said = {f"rating_{name}": "3" for name in ("emotion", "own_answer", "true", "fluent")}
    data = {"item": item, "seconds": "1", "key": f"key-number-{number}", **said}
    assert client.post("/answer", data=data).status_code == 204


def test_to_the_end_and_one_step_back(inside: TestClient, study: Study, database: Database) -> None:
    assert inside.post("/finish").status_code == 409
    for number, item in enumerate(study.assignments["r001"]):
        assert f'data-item="{item}"' in inside.get("/").text
        do(inside, item, number)
    assert "finished_how." in inside.get("/").text
    assert inside.post("/undo", data={"key": "undo-number-1"}).status_code == 204
    assert inside.post("/undo", data={"key": "undo-number-1"}).status_code == 204  # a resend
    assert 'data-item="item5"' in inside.get("/").text
    do(inside, "item5", 99)
    assert inside.post("/finish").status_code == 204
    page = inside.get("/").text
    assert "DONE-1234" in page
    assert 'href="https://panel.example/back"' in page
    assert inside.post("/undo", data={"key": "undo-number-2"}).status_code == 409
    assert [row["kind"] for row in database.log()][-2:] == ["undo", "rating"]


def test_a_rating_shows_the_answer_and_a_pair_does_not(inside: TestClient) -> None:
    for number, item in enumerate(("item0", "item1", "item2")):
        do(inside, item, number)
    inside.post("/emotion", data={"item": "item3", "emotion": "sadness", "seconds": "1"})
    page = inside.get("/").text
    assert "What CCCC says of clip3." in page
    assert "answer." in page


def test_answers_have_the_names_of_emotions_in_the_rater_s_language(tmp_path: Path) -> None:
    """A rater who chose "Ärger" read that the program's answer was "anger"."""
    content = plan("german")
    texts = content["texts"]["en"]
    texts["emotions"] |= {"anger": "Ärger"}
    texts["page"]["answer"] = "Antwort: {answer}."
    study = read_study(write_small_study(tmp_path / "german", content))
    base = Answerbase(f"sqlite:///{tmp_path / 'answers.db'}")
    database = Database(base, study)
    app = site(application(study, database), hosts=hosts_of(LOOPBACK), most_bytes=MOST_BYTES)
    client = TestClient(app, base_url=BASE, headers={"accept": "text/html"})
    client.post("/enter", data={"token": database.invite()[0].token, "language": "en"})
    for number, item in enumerate(("item0", "item1", "item2")):
        do(client, item, number)
    client.post("/emotion", data={"item": "item3", "emotion": "anger", "seconds": "1"})
    page = client.get("/").text
    assert "Antwort: Ärger." in page
    assert "anger." not in page
    base.close()
    german = study.texts["en"]
    assert [german.answer(said) for said in ("Anger", " sadness", "rage")] == ["Ärger", "sadness", "rage"]


def test_clips_go_to_their_raters_in_parts(inside: TestClient, study: Study) -> None:
    response = inside.get("/clips/clip1", headers={"range": "bytes=1-2"})
    assert (response.status_code, response.content) == (206, b"li")
    assert response.headers["content-type"] == "video/mp4"
    assert "private" in response.headers["cache-control"]
    for path in ("/clips/none", "/clips/..%2Fkey.json", "/clips/../key.json", "/static/../../plan.py"):
        assert inside.get(path).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://other.example"},
        {"host": "other.example"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
    ],
)
def test_pages_of_other_addresses_change_nothing(
    inside: TestClient, database: Database, headers: dict[str, str]
) -> None:
    data = {"item": "item0", "emotion": "anger", "seconds": "1"}
    assert inside.post("/emotion", data=data, headers=headers).status_code in (400, 403)
    rater = database.resume(inside.cookies[cookie_of(database.study)])
    assert database.seen(rater, "item0") is None


def test_what_is_too_large_is_refused(inside: TestClient) -> None:
    assert inside.post("/undo", data={"key": "x" * MOST_BYTES}).status_code == 413


def test_markup_in_explanations_stays_text(tmp_path: Path) -> None:
    content = plan("hostile")
    content["items"][0]["explanations"][0]["text"] = "<script>alert(1)</script> & {emotion}"
    study = read_study(write_small_study(tmp_path / "hostile", content))
    base = Answerbase(f"sqlite:///{tmp_path / 'answers.db'}")
    database = Database(base, study)
    client = TestClient(application(study, database), base_url=BASE)
    client.post("/enter", data={"token": database.invite()[0].token, "language": "en"})
    client.post("/emotion", data={"item": "item0", "emotion": "anger", "seconds": "1"})
    page = client.get("/").text
    base.close()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; {emotion}" in page
    assert re.findall(r"<script(?! src=)", page) == []


def test_the_language_is_the_address_s_then_the_browser_s(tmp_path: Path) -> None:
    content = plan("two")
    content["languages"] = ["en", "de"]
    content["texts"]["de"] = content["texts"]["en"] | {"consent": ["Sie dürfen aufhören."]}
    study = read_study(write_small_study(tmp_path / "two", content))
    base = Answerbase(f"sqlite:///{tmp_path / 'answers.db'}")
    client = TestClient(application(study, Database(base, study)), base_url=BASE)

    def language(path: str, accepted: str) -> str:
        page = client.get(path, headers={"accept-language": accepted}).text
        (found,) = re.findall(r'<html lang="(\w+)">', page)
        return str(found)

    assert language("/enter?token=t", "de-AT,de;q=0.9,en;q=0.8") == "de"
    assert language("/enter?token=t", "fr;q=1.0,en;q=0.5,de;q=0.9") == "de"
    assert language("/enter?token=t", "fr") == "en"
    assert language("/enter?token=t&lang=de", "en") == "de"
    assert language("/enter?token=t&lang=xx", "en") == "en"
    page = client.get("/enter?token=t&PROLIFIC_PID=p").text
    assert 'href="/enter?token=t&amp;PROLIFIC_PID=p&amp;lang=de"' in page
    base.close()


def test_two_studies_on_one_host_keep_their_raters(tmp_path: Path) -> None:
    """A browser sends a cookie to all ports of a host."""
    visits = []
    shared: dict[str, str] = {}
    for name in ("one", "two"):
        study = read_study(write_small_study(tmp_path / name))
        base = Answerbase(f"sqlite:///{tmp_path / name}.db")
        database = Database(base, study)
        client = TestClient(application(study, database), base_url=BASE)
        data = {"token": database.invite()[0].token, "language": "en"}
        shared |= dict(client.post("/enter", data=data, follow_redirects=False).cookies)
        visits.append((client, base))
    for client, base in visits:
        client.cookies.clear()
        client.cookies.update(shared)
        assert client.get("/").status_code == 200
        base.close()


def test_a_page_of_another_rater_sends_nothing(inside: TestClient, database: Database) -> None:
    """In a shared browser, the session may be another rater's than the page's."""
    (mark,) = re.findall(r'<meta name="erv-study-visit" content="(\w+)">', inside.get("/").text)
    data = {"token": database.invite()[0].token, "language": "en"}
    said = {"item": "item0", "emotion": "anger", "seconds": "1"}
    assert inside.post("/emotion", data=said, headers={"erv-study-visit": mark}).status_code == 204
    inside.post("/enter", data=data)
    for path, more in (("/emotion", {}), ("/undo", {"key": "undo-number-1"}), ("/finish", {})):
        headers = {"erv-study-visit": mark, "accept": "application/json"}
        response = inside.post(path, data={**said, **more} if path == "/emotion" else more, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "other_rater")
    (other,) = re.findall(r'<meta name="erv-study-visit" content="(\w+)">', inside.get("/").text)
    assert other != mark
    assert inside.post("/emotion", data=said, headers={"erv-study-visit": other}).status_code == 204


def test_raters_are_shown_their_number(inside: TestClient, study: Study, database: Database) -> None:
    (rater,) = state_of(database._base, study).raters
    assert f"No. {rater.id}" in inside.get("/instructions").text
    for number, item in enumerate(study.assignments["r001"]):
        do(inside, item, number)
    inside.post("/finish")
    assert f"No. {rater.id}" in inside.get("/").text


def test_a_plan_of_before_lacks_words_and_stays_readable(tmp_path: Path) -> None:
    content = plan("before")
    for word in ("number", "needs_script"):
        del content["texts"]["en"]["page"][word]
    study = read_study(write_small_study(tmp_path / "before", content))
    base = Answerbase(f"sqlite:///{tmp_path / 'answers.db'}")
    database = Database(base, study)
    client = TestClient(application(study, database), base_url=BASE)
    page = client.post("/enter", data={"token": database.invite()[0].token, "language": "en"}).text
    base.close()
    assert "Watch the clip." in page
    assert 'id="number"' not in page
    assert "<noscript>" not in page


def test_words_keep_braces_that_are_no_places(study: Study) -> None:
    texts: Texts = study.texts["en"].model_copy(update={"page": {"chosen": "{emotion} {x} {"}})
    assert words(texts, "chosen", emotion="{x}") == "{x} {x} {"


def test_who_runs_no_scripts_is_told_so_before_they_agree(
    client: TestClient, database: Database, study: Study
) -> None:
    (invitation,) = database.invite()
    said = f'<noscript><p class="notice warn">{study.texts["en"].page["needs_script"]}</p></noscript>'
    assert said in client.get("/enter", params={"token": invitation.token}).text
    client.post("/enter", data={"token": invitation.token, "language": "en"})
    assert said in client.get("/").text
