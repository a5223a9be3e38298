//! What holds of every page, whoever looks at it and whatever it shows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::page::{DESK, Look, PHONE, Page};
use crate::world::{PAGES, World};

/// The one that is not there is refused, which browsers note.
const REFUSED: &[&str] = &["status of 404"];

async fn visit(page: &Page, path: &str) {
    let expected = if path == "/no/such/page" { 404 } else { 200 };
    assert_eq!(page.visit(path).await, expected, "{path}");
}

#[tokio::test]
async fn everybody_can_use_every_page_in_light_and_dark_at_a_desk_and_on_a_phone() {
    let world = World::start().await;
    let mut all = Vec::new();
    for look in [DESK, Look { dark: true, ..DESK }, PHONE] {
        let Some(page) = Page::open(world.server.addr, look).await else {
            return;
        };
        for path in PAGES {
            visit(&page, path).await;
            let faults = page.faults().await.into_iter();
            all.extend(faults.map(|fault| format!("{path} ({look:?}): {fault}")));
        }
        page.close_after(REFUSED).await;
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[tokio::test]
async fn what_hostile_senders_sent_is_shown_and_nothing_of_it_runs() {
    let world = World::start().await;
    let Some(page) = Page::open(world.server.addr, DESK).await else {
        return;
    };
    let mut shown = 0;
    for path in PAGES {
        visit(&page, path).await;
        let found = page
            .evaluate(
                "({ran: window.hostileRan ?? null,
                   scripts: document.scripts.length,
                   handlers: document.querySelectorAll('[onerror], [onload], [onclick], img[src=x]').length,
                   links: [...document.links].filter((link) => !/^https?:/.test(link.protocol)).length,
                   told: document.body.innerText.includes('<script>') || document.body.innerText.includes('onerror')})",
            )
            .await;
        let expected = json!({"ran": null, "scripts": 1, "handlers": 0, "links": 0, "told": found["told"]});
        assert_eq!(found, expected, "{path}");
        shown += u32::from(found["told"] == true);
    }
    assert!(shown >= 4, "they are shown, as text, on {shown} pages");
    page.close_after(REFUSED).await;
}

#[tokio::test]
async fn the_keyboard_reaches_all_that_a_mouse_does_and_shows_where_it_is() {
    let world = World::start().await;
    let Some(page) = Page::open(world.server.addr, DESK).await else {
        return;
    };
    for path in PAGES {
        visit(&page, path).await;
        let usable = numbers(&page.say("outline", json!({})).await);
        let walked = page.say("walk", json!({})).await;
        let reached = numbers(&walked);
        let missed: Vec<_> = usable
            .iter()
            .filter(|(number, _)| !reached.contains_key(number))
            .collect();
        assert!(missed.is_empty(), "{path}: nobody gets to {missed:?}");
        let stops = walked.as_array().expect("stops");
        let unseen: Vec<_> = stops.iter().filter(|stop| stop["seen"] != true).collect();
        assert!(unseen.is_empty(), "{path}: one does not see it at {unseen:?}");
        assert_eq!(stops[0]["name"], "Skip to content", "{path}");
    }
    page.close_after(REFUSED).await;
}

/// What elements are, by their numbers.
fn numbers(elements: &Value) -> BTreeMap<u64, String> {
    let elements = elements.as_array().expect("elements").iter();
    elements
        .map(|element| {
            let number = element["number"].as_u64().expect("a number");
            (number, format!("{} {}", element["tag"], element["name"]))
        })
        .collect()
}

#[tokio::test]
async fn without_script_every_page_shows_what_it_shows_with_it() {
    let world = World::start().await;
    let plain = Look {
        script: false,
        ..DESK
    };
    let Some(page) = Page::open(world.server.addr, plain).await else {
        return;
    };
    let Some(scripted) = Page::open(world.server.addr, DESK).await else {
        return;
    };
    for path in PAGES {
        visit(&page, path).await;
        visit(&scripted, path).await;
        // But for buttons that only a script can carry out, and moments, which go on.
        let content =
            "[...document.querySelectorAll('main :is(h1, h2, h3, a, td, dt, pre, .badge, .remedy, label)')]
            .filter((element) => !element.querySelector('time, .copy'))
            .map((element) => element.textContent.trim().replace(/\\s+/g, ' '))";
        let (without, with) = (page.evaluate(content).await, scripted.evaluate(content).await);
        assert!(!without.as_array().unwrap().is_empty(), "{path} shows something");
        assert_eq!(without, with, "{path}");
    }
    page.close_after(REFUSED).await;
    scripted.close_after(REFUSED).await;
}
