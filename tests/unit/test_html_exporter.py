"""The html exporter in a real Chromium: what the page shows is what was recorded, and nothing in it can take over."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import diffkeeper
from diffkeeper import exporting, plugins, testing
from diffkeeper.errors import PluginError
from diffkeeper.exporting import Exported, Selection
from diffkeeper.progress import Silent
from diffkeeper.trace import Trace
from diffkeeper_plugins.exporters.html import safe_json
from tests.builder import TraceBuilder
from tests.walk import busy

CHROMIUM = "/usr/bin/chromium"
EVIL = "</script><script>owned=1</script><img src=x onerror=owned=1><!--"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page that was opened, and everything it said or asked for."""

    def __init__(self, browser: Browser, file: Path) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1300, "height": 800})
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"file://{file}")
        self.file = file

    def check(self) -> None:
        """It asked for itself only, nothing failed, and nobody else's script ran."""
        assert self.asked == [f"file://{self.file}"]
        assert self.said == []
        assert self.page.evaluate("typeof owned") == "undefined"
        self.page.close()


def export(trace: Trace, out: Path, selection: Selection | None = None, **options: str) -> Exported:
    exporter = plugins.exporter("html", options)
    return exporting.export(exporter, trace, selection or Selection(trace.moment("end")), out, Silent())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a report that is rewritten, a log, a binary, and a directory that moves."""
    folder = tmp_path_factory.mktemp("story")
    builder = TraceBuilder(folder / "trace")
    lines = [b"line %d\n" % number for number in range(100)]
    builder.baseline({"report.txt": b"".join(lines), "src/a.c": b"int a;\n", "image": b"\x89PNG\0\0", "quiet": b"hush"})
    builder.begin()
    builder.exec("python", "-m", "job")
    lines[50] = b"line fifty\n"
    builder.rewrite("report.txt", b"".join(lines), at=1)
    builder.mark("broken", at=2)
    builder.rename("src", "lib", at=3)
    builder.write("image", b"\0more", at=4)
    for number in range(300):
        builder.create(f"made/{number}", b"") if builder.exists("made") else builder.mkdir("made")
    builder.unlink("lib/a.c", at=6)
    builder.end(at=8)
    with diffkeeper.open(builder.build()) as trace:
        result = export(trace, folder / "page.html")
    assert result.notes == ("1 file: not a text, so its content is not in this page",)
    return folder / "page.html"


def test_conformance(tmp_path: Path) -> None:
    """The same page twice, also down a pipe, and nothing outside."""
    testing.check_exporter(lambda: plugins.exporter("html", {}), tmp_path)


def test_slide_filter_and_open_a_diff(browser: Browser, story: Path) -> None:
    """What a user does: filter the list, click an event, see its diff; slide to other moments; use the keyboard."""
    opened = Opened(browser, story)
    page = opened.page
    assert "307 events" in page.inner_text("#count")
    assert page.locator(".row").count() < 100, "only rows that can be seen exist"
    page.fill("#filter", "op:write report")
    assert page.inner_text("#count") == "1 of 307"
    page.click(".row")
    assert page.inner_text("#b-name").startswith("@1.001s")
    assert page.locator(".file").all_inner_texts()[0].split() == ["M", "report.txt", "0", "B", "→", "793", "B"]
    page.fill("#a", "0")
    assert page.inner_text("#a-name").startswith("@start")
    assert page.locator(".side.del .text").all_inner_texts() == ["line 50"]
    assert page.locator(".side.add .text").all_inner_texts() == ["line fifty"]
    assert page.locator(".side.add mark").all_inner_texts() == ["fifty"]
    assert page.locator(".side.add .no").inner_text() == "51"
    folds = page.locator(".fold")
    assert folds.all_inner_texts() == ["⋯ 47 lines that are the same", "⋯ 46 lines that are the same"]
    folds.first.click()
    assert page.locator(".pair").count() == 7 + 47
    page.locator("#list").focus()
    page.fill("#filter", "")
    page.keyboard.press("Escape")
    page.keyboard.press("j")  # the mark: nothing changes
    assert "No file differs" in page.inner_text("#paths")
    page.keyboard.press("j")
    files = [text.split()[:2] for text in page.locator(".file").all_inner_texts()]
    assert files == [["A", "lib/a.c"], ["D", "src/a.c"]]
    page.keyboard.press("End")
    page.keyboard.press("s")
    assert "302 files" in page.inner_text("#path-count")
    page.fill("#path-filter", "image")
    assert "Not a text" in page.inner_text("#diff")
    page.click("#tab-files")
    page.fill("#path-filter", "quiet")
    assert "The same in both moments" in page.inner_text("#diff")
    assert "hush" in page.inner_text("#diff")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    opened.check()


def test_the_list_scrolls_through_thousands(browser: Browser, tmp_path: Path) -> None:
    """10,000 events: a few rows at a time, the last one is reached, and filtering them is quick."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"log": b""})
    builder.begin()
    for number in range(10_000):
        builder.write("log", b"%d\n" % number)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        export(trace, tmp_path / "page.html")
    opened = Opened(browser, tmp_path / "page.html")
    page = opened.page
    here = "document.querySelector('.row.here')?.getBoundingClientRect().top ?? -1"
    page.fill("#b", "5000")
    assert 200 < page.evaluate(here) < 800, "the list goes along with the slider"
    page.fill("#a", "7000")
    assert 200 < page.evaluate(here.replace(".here", ".there")) < 800
    page.mouse.click(1000, 70)  # on the strip above the sliders
    assert 200 < page.evaluate(here) < 800
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    page.wait_for_function("document.querySelector('.row:last-child').textContent.startsWith('10.000s')")
    assert page.locator(".row").count() < 100
    milliseconds = page.evaluate("""() => {
        const begun = performance.now(), box = document.getElementById('filter');
        box.value = '10.000s'; box.dispatchEvent(new Event('input'));
        return performance.now() - begun;
    }""")
    assert milliseconds < 2000
    assert page.inner_text("#count") == "1 of 10000"
    page.keyboard.press("Escape")
    page.locator(".row").last.click()
    assert page.locator(".side.add .text").all_inner_texts() == ["9999"]
    opened.check()


@pytest.mark.parametrize("seed", range(3))
def test_every_file_at_every_moment_is_what_was_recorded(browser: Browser, tmp_path: Path, seed: int) -> None:
    """Random changes; the page's own model gives each tree, mode and content as the builder remembers them."""
    builder, trees = busy(tmp_path / "trace", seed)
    with diffkeeper.open(builder.path) as trace:
        result = export(trace, tmp_path / "page.html")
    assert result.notes == ()
    opened = Opened(browser, tmp_path / "page.html")
    shown = opened.page.evaluate("""() => {
        const moments = {};
        for (let place = 0; place <= Model.count; place++) {
            moments[Model.seq(place)] = Object.fromEntries(Model.files(place).map((file) =>
                [file.path, [file.after.mode, file.after.size, Model.content(file.after, place).text]]));
        }
        return moments;
    }""")
    for seq, tree in trees.items():
        expected = {
            path[len(b"/opt/root/") :].decode(): [mode, len(content), content.decode()]
            for path, (mode, _, _, _, _, content) in tree.items() if not stat.S_ISDIR(mode)
        }  # fmt: skip
        assert shown[str(seq)] == expected, seq
    opened.check()


def test_lines_are_compared_as_they_should_be(browser: Browser, story: Path) -> None:
    """Whatever two texts are: the rows give both back, and rows that differ are no more than they must be."""
    opened = Opened(browser, story)
    wrong = opened.page.evaluate(r"""() => {
        let seed = 7;
        const chance = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
        const wrong = [];
        for (let turn = 0; turn < 400; turn++) {
            const one = Array.from({length: chance(30)}, () => "abcdef"[chance(6)]), other = one.slice();
            for (let edit = chance(6); edit > 0; edit--) {
                if (chance(2)) other.splice(chance(other.length + 1), 0, "xyz"[chance(3)]);
                else other.splice(chance(other.length + 1), 1);
            }
            const left = one.join("\n") + (one.length && chance(2) ? "\n" : "");
            const right = other.join("\n") + (other.length && chance(2) ? "\n" : "");
            const rows = Diff.rows(left, right);
            const side = (name) => rows.filter((row) => row[name]).map((row) => row[name][1].replace("\u0000", ""));
            const whole = (text) => text.replace(/\n$/, "");
            const numbers = rows.filter((row) => row.b).every((row, at) => row.b[0] === at + 1);
            const same = rows.filter((row) => row.kind === "=").every((row) => row.a[1] === row.b[1]);
            const both = side("a").join("\n") === whole(left) && side("b").join("\n") === whole(right);
            if (!both || !numbers || !same) wrong.push([left, right]);
        }
        return wrong;
    }""")
    assert wrong == []
    edits = opened.page.evaluate("Diff.rows('a\\nb\\nc\\n', 'a\\nx\\nb\\nc\\n').map((row) => row.kind).join('')")
    assert edits == "=+=="
    opened.check()


def test_nothing_that_was_recorded_becomes_markup(browser: Browser, tmp_path: Path) -> None:
    """Names, contents, targets, arguments, marks and gaps that are made to break out stay text."""
    builder = TraceBuilder(tmp_path / "trace")
    safe_name = EVIL.replace("/", "\u2215")
    builder.baseline({safe_name: EVIL.encode() + b"\n", "b": b"{{script}} {{data}} \x1b[31m \xe2\x80\xaeevil\n"})
    builder.begin()
    builder.exec("<b>", EVIL, "{{style}}", comm="<i>x")
    builder.rewrite(safe_name, EVIL.encode() * 3)
    builder.symlink(EVIL, "link")
    builder.create(b"\xff\xfe<u>", b"\xc3\x28 not UTF-8\n")
    builder.mark(EVIL)
    builder.gap(1, EVIL)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        export(trace, tmp_path / "page.html")
    page_text = (tmp_path / "page.html").read_text("ascii", "replace")
    assert "<img" not in page_text
    opened = Opened(browser, tmp_path / "page.html")
    page = opened.page
    assert page.locator("script").count() == 2
    for tag in ("img", "b:not(#diff-head b)", "u", "i"):
        assert page.locator(tag).count() == 0
    page.fill("#filter", "")
    page.click("#tab-files")
    for number in range(page.locator(".file").count()):
        page.locator(".file").nth(number).click()
    assert EVIL in page.inner_text("#list")
    page.fill("#path-filter", "b")
    page.locator(".file", has_text="b").last.click()
    assert "202e" in page.inner_text("#diff") and "\u202e" not in page.inner_text("#diff")
    opened.check()


def test_limits_are_kept_and_told(tmp_path: Path, browser: Browser) -> None:
    """More events, files and bytes than the page may hold: it says what is left out, and shows the rest."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({**{f"quiet{number}": b"q" for number in range(20)}, "big": b"x" * 5000, "f": b"1\n"})
    builder.begin()
    builder.write("big", b"more")
    for number in range(50):
        builder.write("f", b"%d\n" % number)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        result = export(trace, tmp_path / "page.html", events="40", files="5", file="1000")
        assert result.entries == 40
        assert result.notes == (
            "the page ends at event 40: 11 later ones are left out (--opt events=…)",
            "15 files to which nothing happened are left out (--opt files=…)",
            "1 file: larger than 1000 B, so its content is not in this page",
        )
        assert export(trace, tmp_path / "none.html", content="20").size <= 20
    opened = Opened(browser, tmp_path / "page.html")
    assert "11 later ones are left out" in opened.page.inner_text("#notes")
    assert opened.page.evaluate("Model.files(40).length") == 7
    opened.check()
    with pytest.raises(PluginError, match="limits of 0 and more"):
        plugins.exporter("html", {"events": "-1"})


@pytest.mark.parametrize("ops", ["write,mark", "mark", "create,write,unlink,exec,mark"])
def test_events_that_are_not_chosen_have_happened(tmp_path: Path, browser: Browser, ops: str) -> None:
    """With a filter of events, what stands at each event that is shown is what was recorded, a mark's moment too."""
    builder, trees = busy(tmp_path / "trace", 7)
    with diffkeeper.open(builder.path) as trace:
        chosen = Selection(trace.moment("end"), filters=(("op", {"include": ops}),))
        export(trace, tmp_path / "page.html", chosen)
    opened = Opened(browser, tmp_path / "page.html")
    shown = opened.page.evaluate("""() => Array.from({length: Model.count}, (_, at) =>
        [Model.seq(at + 1), Object.fromEntries(Model.files(at + 1).map((file) => [file.path, file.after.mode]))])""")
    compared = [seq for seq, files in shown if seq in trees and files == {
        path[len(b"/opt/root/") :].decode(): mode for path, (mode, *_) in trees[seq].items() if not stat.S_ISDIR(mode)
    }]  # fmt: skip
    assert compared == [seq for seq, _ in shown if seq in trees]
    assert compared
    opened.check()


def test_several_roots_and_a_range(tmp_path: Path, browser: Browser) -> None:
    """With two roots paths are absolute everywhere; a range begins with what stood there."""
    builder = TraceBuilder(tmp_path / "trace", roots=("/opt/one", "/srv/two"))
    builder.baseline({"/opt/one/a": b"1", "/srv/two/b": b"2"})
    builder.begin()
    builder.write("/opt/one/a", b"+", at=1)
    builder.write("/srv/two/b", b"+", at=2)
    builder.write("/srv/two/b", b"!", at=3)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        export(trace, tmp_path / "page.html", Selection(trace.moment("end"), first=trace.covered("2s")[0]))
    opened = Opened(browser, tmp_path / "page.html")
    assert opened.page.evaluate("Model.name(0)") == "1.000s"
    found = opened.page.evaluate("""Model.changes(0, 2).map((file) =>
        [file.path, Model.content(file.before, 0).text, Model.content(file.after, 2).text])""")
    assert found == [["/srv/two/b", "2", "2+!"]]
    opened.page.fill("#filter", "two")
    opened.page.locator(".row").last.click()
    assert opened.page.locator(".file").count() == 1
    opened.check()


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "\u2028", "\ud800"])
def test_json_cannot_end_its_element(text: str) -> None:
    """And is the same JSON."""
    made: Any = safe_json([text])
    assert "<" not in made and ">" not in made and made.isascii()
    assert json.loads(made) == [text]
