"""Uses the preview page as a person does, in a headless browser: `page.py BROWSER ADDRESS SOURCE [FOLDER]`.

The pipeline behind it has two streams, of which `car` has a region, and lets streams be added. SOURCE is added and removed
again. Standard output gets what was seen as a JSON object; FOLDER gets screenshots. Whatever does not appear ends it with
an error that says what was waited for.
"""

import json
import os
import sys

from playwright.sync_api import sync_playwright

WAIT_MS = 30_000


def main(browser, address, source, folder=None):
    said = []
    with sync_playwright() as playwright:
        # As root, which is how containers run, a browser has no sandbox of its own.
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("response", lambda got: said.append(f"{got.status} {got.url}") if got.status >= 400 else None)

        def shot(name):
            if folder:
                page.screenshot(path=os.path.join(folder, f"{name}.png"))

        def until(condition, *arguments):
            page.wait_for_function(condition, arg=list(arguments))

        # Pictures never end to come, so that the page never falls idle.
        page.goto(address, wait_until="commit")
        until("() => document.querySelectorAll('article').length === 2")
        until("() => [...document.querySelectorAll('article img')].every(image => image.naturalWidth > 0)")
        until("() => [...document.querySelectorAll('article .graph path')].filter(path => path.getAttribute('d')).length >= 4")
        tiles = page.evaluate(
            """() => [...document.querySelectorAll('article')].map(tile => ({
                id: tile.dataset.id, rate: tile.querySelector('.rate').textContent,
                picture: [tile.querySelector('img').naturalWidth, tile.querySelector('img').naturalHeight] }))"""
        )
        until("() => document.querySelector('article[data-id=car] .counts').textContent.includes('seat')")
        page.click("#show-log")
        until("() => document.querySelectorAll('#log li').length > 0")
        events = page.locator("#log li").first.inner_text()
        shot("tiles")

        page.click("article[data-id=car] .open")
        until("() => document.querySelector('#detail').open")
        until("() => document.querySelector('#detail img').naturalWidth > 0")
        until("() => document.querySelector('#detail .latencies path')?.getAttribute('d')")
        detail = page.locator("#detail-name").inner_text(), page.locator("#counts").inner_text()
        shot("detail")
        page.keyboard.press("Escape")
        until("() => !document.querySelector('#detail').open")

        page.click("#add")
        page.fill("#adding input[name=uri]", "ftp://nowhere")
        page.click("#adding button.main")
        until("() => document.querySelector('#adding .wrong').textContent.length > 0")
        refused = page.locator("#adding .wrong").inner_text()
        page.fill("#adding input[name=uri]", source)
        page.fill("#adding input[name=id]", "added")
        page.click("#adding button.main")
        until("() => document.querySelector('article[data-id=added] img')?.naturalWidth > 0")
        shot("added")
        page.click("article[data-id=added] .open")
        # The refusal above is an answer as well; the last picture of a stream that goes may come too late.
        errors = [line for line in said if not line.startswith("400 ")]
        page.click("#remove")
        # A second press is the confirmation.
        page.click("#remove")
        until("() => !document.querySelector('article[data-id=added]') || "
              "document.querySelector('article[data-id=added] .word').textContent === 'ended'")
        chromium.close()
    print(json.dumps({"tiles": tiles, "event": events, "detail": detail, "refused": refused, "errors": errors}))


if __name__ == "__main__":
    main(*sys.argv[1:])
