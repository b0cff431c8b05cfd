//! ADD of URLs and repositories, and contexts that are no directories: the program against a web server and git's own
//! servers.

#![expect(clippy::unwrap_used, reason = "a test's helper may fail it as the test itself may")]

mod build;
mod contexts;
mod repositories;
mod server;
mod urls;

/// The documented exit codes.
const DATA: i32 = 65;
const NO_INPUT: i32 = 66;
const UNAVAILABLE: i32 = 69;
const PROTOCOL: i32 = 76;
const NO_PERMISSION: i32 = 77;
