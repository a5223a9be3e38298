//! The dashboard in a real browser: what people see, click and type, against a real server.

mod deliveries;
mod driver;
mod every_page;
mod failures;
mod film;
mod first_load;
mod frame;
mod live;
mod login;
#[path = "../media/mod.rs"]
mod media;
mod page;
mod scenery;
mod screenshots;
mod search;
mod setup;
#[path = "../soundness/mod.rs"]
mod soundness;
#[expect(dead_code, unused_imports, reason = "tests/api needs more of it than this")]
#[path = "../api/support/mod.rs"]
mod support;
mod world;
