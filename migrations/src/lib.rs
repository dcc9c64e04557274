//! deed-migrations
