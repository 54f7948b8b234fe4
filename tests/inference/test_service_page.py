"""The page in a browser: what a user drops, reads and hears."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, FilePayload, Page, Route, expect, sync_playwright

from inference.service import PAGE, page_policy
from tests.inference.running import Running, make_export, picture, running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<img src=x onerror=document.title='ran'>"
PHONE, DESKTOP = (390, 844), (1280, 900)
DROP = """([files]) => {
  const dropped = new DataTransfer();
  for (const [name, content] of files) {
    dropped.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
  }
  return dropped;
}"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    labels = ["red", "green", f"blue {HOSTILE}", "<b>four</b>", "five", "six", "seven"]
    with running(make_export(tmp_path_factory.mktemp("hostile"), labels)) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: the page is not opened")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def said() -> list[str]:
    """What the browser's console says, and each address that the page asks for."""
    return []


@pytest.fixture
def page(browser: Browser, service: Running, said: list[str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": PHONE[0], "height": PHONE[1]})
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if service.address in request.url else said.append(request.url))
    page.goto(service.address)
    yield page
    context.close()


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    encoded = [[name, base64.b64encode(content).decode()] for name, content in files]
    dropped = page.evaluate_handle(DROP, [encoded])
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})


def serious(page: Page) -> list[str]:
    """Return what axe finds that keeps people from using the page."""
    found = Axe().run(page).response["violations"]
    return [violation["id"] for violation in found if violation["impact"] in ("serious", "critical")]


def test_a_real_photo_is_dropped_and_answered(shared_data: Path, page: Page, said: list[str]) -> None:
    with ZipFile(shared_data / "petimages.zip") as archive:
        photo = archive.read("PetImages/Cat/588.jpg")
    drop(page, ("cat.jpg", photo))
    expect(page.get_by_role("status")).to_have_text("1 photo: 1 red")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="cat.jpg"))
    expect(card.locator(".answer")).to_contain_text("red ")
    expect(card.locator(".answer")).to_contain_text(" %")
    expect(card.get_by_role("img", name="Preview of cat.jpg")).to_be_visible()
    assert card.locator(".classes > li").count() == 7, "all classes, those beyond the fifth folded away"
    card.get_by_text("2 more classes").click()
    expect(card.get_by_text("seven", exact=True)).to_be_visible()
    said = [text for text in said if not text.startswith("blob:")]
    assert said == []


def test_names_of_files_and_classes_are_text(page: Page, said: list[str]) -> None:
    drop(page, (f"{HOSTILE}.png", picture("blue")), (f"{HOSTILE}.txt", b"<script>document.title='ran'</script>"))
    expect(page.get_by_role("status")).to_have_text(f"2 photos: 1 blue {HOSTILE}, 1 without an answer")
    expect(page.get_by_role("heading", name=f"{HOSTILE}.png")).to_be_visible()
    expect(page.locator(".answer")).to_contain_text(f"blue {HOSTILE}")
    expect(page.locator(".refused")).to_contain_text("Not an image")
    expect(page.locator(".refused")).to_contain_text("begins with b'<script>docu'")
    expect(page.locator("#model")).to_contain_text(HOSTILE)
    assert page.locator("img[onerror], #results script").count() == 0
    assert page.title() == "Pawline: what do your photos show?"
    assert [text for text in said if "status of 422" not in text and not text.startswith("blob:")] == []


def test_it_is_used_by_keyboard(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # Chromium must know, long before the key, that choosers are to be told of
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    names = ["a.png", "b.png", "c.png"]
    files: list[FilePayload] = [{"name": name, "mimeType": "image/png", "buffer": picture("lime")} for name in names]
    chooser.value.set_files(files)
    expect(page.get_by_role("status")).to_have_text("3 photos: 3 green")
    assert page.get_by_role("heading", level=2).all_inner_texts() == names
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#results > li")).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "file"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_everybody_can_read_it(page: Page, scheme: str, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    drop(page, ("x" * 100 + ".png", picture("red")), ("b.txt", b"text"))
    expect(page.get_by_role("status")).to_have_text("2 photos: 1 red, 1 without an answer")
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0], "nothing sticks out"


def test_a_service_that_is_gone_is_said(page: Page) -> None:
    page.route("**/predict", lambda route: route.abort())
    drop(page, ("a.png", picture("red")))
    expect(page.locator(".refused")).to_contain_text("the service does not run any more")


def test_a_busy_service_is_asked_again(page: Page) -> None:
    refusals = iter([503, 503])

    def refuse_twice(route: Route) -> None:
        if next(refusals, None):
            route.fulfill(status=503, headers={"Retry-After": "0.05"}, body="{}")
        else:
            route.continue_()

    page.route("**/predict", refuse_twice)
    drop(page, ("a.png", picture("red")))
    expect(page.get_by_role("status")).to_have_text("1 photo: 1 red")


def test_the_policy_allows_this_page_and_no_other_script() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "<script>" in text
    assert page_policy(text) != page_policy(text.replace("</script>", "//</script>"))
    assert "http" not in text.replace("http://www.w3.org", ""), "nothing is loaded from elsewhere"
