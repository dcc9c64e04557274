//! deed-client
