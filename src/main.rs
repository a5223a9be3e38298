//! The `reelhook` program: see the library for everything.

fn main() {}
