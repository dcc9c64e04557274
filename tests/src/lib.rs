//! deed-tests
