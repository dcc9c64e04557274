//! deed-server
