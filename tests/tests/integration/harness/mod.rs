//! The harness against itself: a test that relies on a container is worth no more than the container.

mod containers;
mod executor;
mod images;
mod registry;
