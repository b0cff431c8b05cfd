//! Patterns for the names of files.
