//! A page in a profile of its own, in the words of the tests.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::driver::{Driver, driver};
use crate::support::skip;

/// How somebody looks at pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) dark: bool,
    pub(crate) width: u16,
    pub(crate) script: bool,
}

/// At a desk, in daylight.
pub(crate) const DESK: Look = Look {
    dark: false,
    width: 1280,
    script: true,
};

/// The width of most phones.
pub(crate) const PHONE: Look = Look { width: 390, ..DESK };

/// An open page. What must hold of every page is asserted by [`Page::close`], which must not be forgotten.
pub(crate) struct Page {
    driver: &'static Driver,
    number: u64,
    closed: bool,
}

impl Page {
    /// A blank page for a server; `None`, after saying why, where there is no browser.
    pub(crate) async fn open(addr: SocketAddr, look: Look) -> Option<Self> {
        let driver = driver().map_err(skip).ok()?;
        let page = Self {
            driver,
            number: driver.number(),
            closed: false,
        };
        let how = json!({
            "origin": format!("http://{addr}"),
            "dark": look.dark,
            "width": look.width,
            "script": look.script,
        });
        page.order("open", how).await;
        Some(page)
    }

    /// Goes somewhere; gives the status.
    pub(crate) async fn visit(&self, path: &str) -> u64 {
        let status = self.order("visit", json!({ "path": path })).await;
        status.as_u64().expect("a status")
    }

    pub(crate) async fn reload(&self) {
        self.order("reload", json!({})).await;
    }

    /// Clicks what has this role and, whole, this name.
    pub(crate) async fn click(&self, role: &str, name: &str) {
        self.order("click", json!({ "role": role, "name": name })).await;
    }

    /// Clicks the first such element.
    pub(crate) async fn click_at(&self, selector: &str) {
        self.order("clickAt", json!({ "selector": selector })).await;
    }

    pub(crate) async fn fill(&self, label: &str, text: &str) {
        self.order("fill", json!({ "label": label, "text": text })).await;
    }

    pub(crate) async fn choose(&self, label: &str, option: &str) {
        self.order("choose", json!({ "label": label, "option": option }))
            .await;
    }

    pub(crate) async fn press(&self, key: &str) {
        self.order("press", json!({ "key": key })).await;
    }

    /// Waits until the text is to be seen.
    pub(crate) async fn see(&self, text: &str) {
        self.order("see", json!({ "text": text })).await;
    }

    /// Waits until such an element is to be seen.
    pub(crate) async fn see_at(&self, selector: &str) {
        self.order("seeAt", json!({ "selector": selector })).await;
    }

    /// Waits until there is no such element.
    pub(crate) async fn see_none(&self, selector: &str) {
        self.order("seeNone", json!({ "selector": selector })).await;
    }

    /// All text that is to be seen.
    pub(crate) async fn text(&self) -> String {
        self.order("text", json!({}))
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Path and query of where one is.
    pub(crate) async fn address(&self) -> String {
        let address = self.order("address", json!({})).await;
        address.as_str().expect("an address").to_owned()
    }

    /// What an expression of JavaScript is.
    pub(crate) async fn evaluate(&self, code: &str) -> Value {
        self.order("evaluate", json!({ "code": code })).await
    }

    /// Waits until an expression is true; gives its value.
    pub(crate) async fn until(&self, code: &str) -> Value {
        self.order("until", json!({ "code": code })).await
    }

    /// What another verb of `verbs.mjs` says.
    pub(crate) async fn say(&self, verb: &'static str, how: Value) -> Value {
        self.order(verb, how).await
    }

    /// No part of the page sticks out, and everybody can use it.
    pub(crate) async fn assert_sound(&self, what: &str) {
        assert_eq!(self.faults().await, Vec::<String>::new(), "{what}");
    }

    /// What sticks out, and what somebody cannot use.
    pub(crate) async fn faults(&self) -> Vec<String> {
        let overflow = self.order("overflow", json!({})).await;
        let wide = overflow
            .as_str()
            .map(|by| format!("wider than the window by {by}"));
        let faults = self.order("audit", json!({})).await;
        let faults = faults.as_array().expect("a list").iter();
        let faults = faults.map(|fault| fault.as_str().expect("text").to_owned());
        wide.into_iter().chain(faults).collect()
    }

    /// Ends it: it complained of nothing, ran nothing foreign, asked nobody else.
    pub(crate) async fn close(self) {
        self.close_after(&[]).await;
    }

    /// The same, but for complaints that contain one of these: of answers that were meant to be refusals.
    pub(crate) async fn close_after(mut self, expected: &[&str]) {
        self.closed = true;
        let complaints = self.order("close", json!({})).await;
        let complaints: Vec<&str> = complaints
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let unexpected = complaints
            .iter()
            .filter(|complaint| !expected.iter().any(|part| complaint.contains(part)));
        assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[track_caller]
    fn order(&self, verb: &'static str, how: Value) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let (driver, number) = (self.driver, self.number);
        async move {
            let said = driver.order(number, verb, how.clone()).await;
            said.unwrap_or_else(|error| panic!("{caller}: {verb} {how}: {error}"))
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        assert!(
            self.closed || std::thread::panicking(),
            "a page was left open, so nobody saw whether it complained"
        );
    }
}
