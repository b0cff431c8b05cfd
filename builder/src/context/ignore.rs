//! The `.dockerignore` file.
