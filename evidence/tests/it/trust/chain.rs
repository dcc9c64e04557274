//! Chains of trust statements, rebuilt from entries.

use super::*;

/// A ledger's trust entries as they lie in the log.
pub(crate) struct Chain {
    pub(crate) entries: Vec<(LeafIndex, Bytes)>,
    pub(crate) link: TrustLink,
    sequence: u64,
}

impl Chain {
    pub(crate) fn new() -> Self {
        let link = Ledger::new().trust.head();
        Self {
            entries: Vec::new(),
            link,
            sequence: 0,
        }
    }

    pub(crate) fn entry(&self, body: Body, signer: &SigningKey, link: TrustLink) -> Bytes {
        let payload = statement::encode(&v1::Statement {
            ledger_id: ledger().as_bytes().to_vec().into(),
            producer: "deed:authority".into(),
            session: vec![1; 16].into(),
            sequence: self.sequence,
            body: Some(body),
            ..v1::Statement::default()
        })
        .unwrap();
        let signed = signature::sign(signer, PayloadType::Statement, &payload);
        let key_id = key_id(signer.public_key());
        let keyed = KeyedSignature {
            key_id: key_id.as_bytes(),
            signature: &signed,
        };
        let time = at(self.sequence.cast_signed());
        Entry::trust(&payload, keyed, time, link).encode()
    }

    pub(crate) fn push(&mut self, body: Body) {
        self.push_by(&signing_key(2), body);
    }

    pub(crate) fn push_by(&mut self, signer: &SigningKey, body: Body) {
        let entry = self.entry(body, signer, self.link);
        self.link = TrustLink {
            leaf_index: LeafIndex::new(10 + 7 * self.sequence),
            leaf_hash: leaf_hash(&entry),
        };
        self.entries.push((self.link.leaf_index, entry));
        self.sequence += 1;
    }

    pub(crate) fn verify(&self) -> Result<TrustState, ChainError> {
        let genesis = fixtures::genesis().to_entry().unwrap();
        TrustChain::verify(&genesis, self.entries.iter().cloned())
    }
}

pub(crate) fn rotated_body(seed: u8) -> Body {
    let vkey = fixtures::log_signer(seed).verifier_key().to_string();
    Body::LogKeyRotated(v1::LogKeyRotated {
        log_key: Some(v1::LogKey { vkey }),
        reason: "exposed".into(),
    })
}

pub(crate) fn registered_body(seed: u8, producer: &str) -> Body {
    let key = registration(seed, producer);
    Body::KeyRegistered(v1::KeyRegistered {
        public_key: key.public_key.as_bytes().to_vec().into(),
        role: key.role.into(),
        producer: key.producer.clone(),
        controller: key.controller.clone(),
        valid_from_us: 0,
        valid_until_us: 0,
        possession: key.possession.to_vec().into(),
        ..v1::KeyRegistered::default()
    })
}

fn chain() -> Chain {
    let mut chain = Chain::new();
    chain.push(registered_body(5, AGENT));
    chain.push(Body::PrincipalBound(v1::PrincipalBound {
        principal: "gateway".into(),
        producer: AGENT.into(),
        valid_until_us: 0,
    }));
    chain.push(registered_body(6, AGENT));
    chain.push(Body::KeyRevoked(v1::KeyRevoked {
        key_id: id(5).as_bytes().to_vec().into(),
        compromised_since_us: Some(at(-5).get()),
        reason: String::new(),
    }));
    chain
}

#[test]
fn a_chain_replays_to_the_trust_state() {
    let mut ledger = Ledger::new();
    let chain = chain();
    let statements = [
        register(5, AGENT),
        bind(AGENT, Micros::MAX),
        register(6, AGENT),
        revoke(5),
    ];
    for (statement, (seconds, (leaf, entry))) in statements.iter().zip((0..).zip(&chain.entries)) {
        let trust = &mut ledger.trust;
        trust.judge(statement, id(2), at(seconds)).unwrap();
        trust.apply(statement, at(seconds), *leaf, leaf_hash(entry));
    }
    assert_eq!(chain.verify().unwrap(), ledger.trust);
    assert_eq!(chain.link, ledger.trust.head());
    assert!(ledger.trust.speaks(id(6), AGENT, at(9)).is_ok());
}

/// One row for each way in which a chain does not hold.
#[test]
fn every_error_of_a_chain() {
    macro_rules! row {
        ($change:expr, $wanted:pat) => {
            let mut chain = chain();
            let change: &dyn Fn(&mut Chain) = &$change;
            change(&mut chain);
            let error = chain.verify().unwrap_err();
            assert!(matches!(error, $wanted), "{error:?}");
        };
    }
    row!(|c| drop(c.entries.remove(1)), ChainError::Link { .. });
    row!(|c| drop(c.entries.remove(0)), ChainError::Link { .. });
    row!(|c| c.entries.swap(1, 2), ChainError::Link { .. });
    row!(
        |c| {
            let copy = c.entries[3].clone();
            c.entries.push(copy);
        },
        ChainError::Link { .. }
    );
    row!(
        |c| c.entries[1].0 = c.entries[0].0,
        ChainError::Order { .. }
    );
    // Another index than the next one links to.
    row!(
        |c| c.entries[1].0 = LeafIndex::new(18),
        ChainError::Link { .. }
    );
    row!(
        |c| c.entries[2].1 = Bytes::from_static(b"x"),
        ChainError::Entry { .. }
    );
    let intent = statement::encode(&fixtures::intent()).unwrap();
    row!(
        |c| c.entries[2].1 = Entry::unsigned(&intent, at(0)).encode(),
        ChainError::NotTrust { .. }
    );
    row!(
        |c| c.entries[2].1 = Entry::by_ledger(&intent, at(0)).encode(),
        ChainError::Statement { .. }
    );
    let foreign = statement::encode(&fixtures::retention_set()).unwrap();
    row!(
        |c| {
            let keyed = KeyedSignature {
                key_id: &[0; 16],
                signature: &[0; 64],
            };
            c.entries[0].1 = Entry::trust(&foreign, keyed, at(0), c.link).encode();
        },
        ChainError::OtherLedger { .. }
    );
    row!(
        |c| {
            let entry = c.entry(registered_body(7, OTHER), &signing_key(6), c.link);
            c.entries.push((LeafIndex::new(99), entry));
        },
        ChainError::Refused {
            source: TrustRefusal::SignerNotAuthority { .. },
            ..
        }
    );
    row!(
        |c| {
            let entry = c.entry(registered_body(6, OTHER), &signing_key(2), c.link);
            c.entries.push((LeafIndex::new(99), entry));
        },
        ChainError::Refused {
            source: TrustRefusal::KeyRegisteredBefore { .. },
            ..
        }
    );
    row!(
        |c| {
            let Body::KeyRegistered(mut body) = registered_body(7, OTHER) else {
                unreachable!()
            };
            body.controller.push('x');
            let entry = c.entry(Body::KeyRegistered(body), &signing_key(2), c.link);
            c.entries.push((LeafIndex::new(99), entry));
        },
        ChainError::Possession { .. }
    );
    row!(
        |c| {
            let entry = c.entry(registered_body(7, OTHER), &signing_key(2), c.link);
            let parsed = Entry::parse(&entry).unwrap();
            let forged = KeyedSignature {
                key_id: parsed.signature.unwrap().key_id,
                signature: &[7; 64],
            };
            let entry = Entry::trust(parsed.payload, forged, at(9), c.link).encode();
            c.entries.push((LeafIndex::new(99), entry));
        },
        ChainError::Signature { .. }
    );
    let error = TrustChain::verify(&intent, chain().entries).unwrap_err();
    assert!(matches!(error, ChainError::Genesis(_)), "{error}");
    // What failed leaves no trace.
    let genesis = fixtures::genesis().to_entry().unwrap();
    let mut begun = TrustChain::begin(&genesis).unwrap();
    let good = chain();
    begun
        .push(good.entries[1].0, &good.entries[1].1)
        .unwrap_err();
    for (index, entry) in &good.entries {
        begun.push(*index, entry).unwrap();
    }
    assert_eq!(begun.into_trust(), good.verify().unwrap());
}
