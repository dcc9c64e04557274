"""The systems that Deed is compared with: each is built or found, started and driven here."""
