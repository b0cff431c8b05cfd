//! The one integration binary: what needs a real registry, a real container runtime or the network.

mod harness;
