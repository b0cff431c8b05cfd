//! Whatever changes between builds, the cache changes nothing: a build that finds records of earlier builds makes the image
//! that a build without them makes.
//!
//! Dockerfiles and contexts are put together by chance ([`world`]), edited by chance ([`edits`]), and built through the
//! library against a registry in memory ([`bench`]), and with all their layers as one ([`squash`]). What needs a RUN is in the
//! integration tests.

#![expect(clippy::unwrap_used, reason = "a test's helper may fail it as the test itself may")]

mod bench;
mod edits;
mod same;
mod squash;
mod world;
