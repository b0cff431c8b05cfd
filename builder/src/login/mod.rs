//! Who is asked for logins that no configuration holds: helper programs, variables, and the clouds.
//!
//! All of it happens in the builder, never in a RUN, and only when a registry asks for a login.

mod helper;
mod variables;

pub(crate) use helper::{Helper, Programs};
pub(crate) use variables::Variables;
