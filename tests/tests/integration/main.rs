//! The one integration binary: what needs a real registry, a real container runtime or the network, and the rules of
//! the sources.

#![expect(clippy::unwrap_used, reason = "a test's helper may fail it as the test itself may")]

mod airgap;
mod attacks;
mod cache;
mod checks;
mod contexts;
mod copies;
mod crashes;
mod differential;
mod drivers;
mod executor_image;
mod flask;
mod harness;
mod in_place;
mod instruction_counts;
mod limits;
mod mounts;
mod outputs;
mod packing;
mod pipelines;
mod platforms;
mod registries;
mod rules;
mod scarcity;
mod secrets;
mod site;
mod snapshot;
mod soak;
mod stages;
mod supply;
mod trust;
mod wrong_input;
