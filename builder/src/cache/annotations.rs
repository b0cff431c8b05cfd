//! How a manifest says that it is a record.

/// The version of the form of records.
pub const VERSION: &str = "dev.yadokari.cache.version";

/// The only version there is.
pub const VERSION_1: &str = "1";

/// What is recorded: one of [`KINDS`].
pub const KIND: &str = "dev.yadokari.cache.kind";

/// A step, a whole result, the index of a layer.
pub const KINDS: [&str; 3] = ["step", "result", "index"];

/// When the record was written or last used, in RFC 3339.
pub const CREATED: &str = "org.opencontainers.image.created";
