//! What reads as a genesis entry is written back to the same bytes, and its id is their hash.

use deed_evidence::{
    LedgerId,
    genesis::{Genesis, GenesisError},
};

pub(crate) fn run(data: &[u8]) {
    check(data).ok();
}

pub(crate) fn check(data: &[u8]) -> Result<(Genesis, LedgerId), GenesisError> {
    let read = Genesis::from_entry(data);
    if let Ok((genesis, id)) = &read {
        assert_eq!(genesis.to_entry().unwrap(), data);
        assert_eq!(*id, LedgerId::new(deed_tlog::leaf_hash(data)));
        assert_eq!(genesis.log_key.name(), genesis.origin.key_name());
        let keys = &genesis.authority_keys;
        assert!((1..=16).contains(&keys.len()));
        assert!(keys.windows(2).all(|two| two[0] < two[1]));
    }
    read
}
