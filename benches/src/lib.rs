//! deed-benches
